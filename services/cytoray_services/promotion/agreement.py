"""Whether a model answers the same in another precision, and on another device.

One set of answers is scored against the other as if that were the truth, with the task's own score; and both against
the truth. An unsure model flips many answers near a threshold, in both directions, without becoming worse or better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.devices import Precision
from cytoray_analysis.inference import INFERENCE
from cytoray_analysis.predictor import Prediction, Predictor
from cytoray_analysis.tasks import TruthKind
from cytoray_services.datasets import Dataset
from cytoray_services.evaluation import Evaluation, evaluate, scored

MOST_IMAGES = 12  # evenly chosen; a processor without native bf16 is slow in it


@dataclass(frozen=True)
class Agreement:
    """How far answers computed otherwise are those in fp32 on the CPU.

    Attributes
    ----------
    alike
        The task's first score of one set of answers where the other is taken for the truth; 1 where all are the same;
        None where there is nothing to count.
    change
        By how much the score against the real truth moves; None where there is nothing to count.
    """

    alike: float | None
    change: float | None


def agreement(bundle: Bundle, dataset: Dataset) -> dict[str, Agreement | None]:
    """Compare the answers in fp32 on the CPU with those in bf16, and with those of the accelerator.

    Returns
    -------
    dict
        By ``bf16`` and ``accelerator``. None where there is nothing to compare: no accelerator, or a kind of model
        that is always computed in fp32.
    """
    images = dataset.images
    chosen = images[:: max(1, -(-len(images) // MOST_IMAGES))]
    few = replace(dataset, items=tuple(item for items in chosen for item in items))

    def evaluated(device: str, precision: Precision) -> tuple[Predictor, Evaluation]:
        predictor = Predictor(bundle, device=device, precision=precision)
        return predictor, evaluate(predictor, few)

    predictor, reference = evaluated("cpu", "fp32")

    def compared(device: str, precision: Precision) -> Agreement:
        return _compare(predictor, evaluated(device, precision)[1], reference)

    always_fp32 = INFERENCE[predictor.task.output.per].precision == "fp32"
    return {
        "bf16": None if always_fp32 else compared("cpu", "bf16"),
        "accelerator": compared("cuda", "fp32") if torch.cuda.is_available() else None,
    }


def _compare(predictor: Predictor, other: Evaluation, reference: Evaluation) -> Agreement:
    answers, truths = ([one.prediction for one in evaluation.items] for evaluation in (other, reference))
    metric = reference.metric
    before, after = reference.metrics.get(metric), other.metrics.get(metric)
    change = None if before is None or after is None else after - before
    return Agreement(score_alike(predictor, answers, truths).get(metric), change)


def score_alike(
    predictor: Predictor, answers: Sequence[Prediction], reference: Sequence[Prediction]
) -> dict[str, float]:
    """Score answers with the task's own score, other answers to the same images being taken for the truth.

    Parameters
    ----------
    predictor
        Of either; it names the task.
    answers, reference
        Image by image.
    """
    as_truth = _AS_TRUTH[predictor.task.output.truth]
    return predictor.task.score([scored(one) for one in answers], [as_truth(one, predictor) for one in reference])


# What a task scores against, made of an answer: classes for their probabilities, stains without their uncertainty.
_AS_TRUTH: dict[TruthKind, Callable[[Prediction, Predictor], Any]] = {
    "labels": lambda prediction, predictor: prediction.answer,
    "class": lambda prediction, predictor: prediction.answer.probabilities.argmax(axis=1),
    "image": lambda prediction, predictor: prediction.answer[: len(predictor.bundle.spec.task.arguments["channels"])],
    "lineage": lambda prediction, predictor: prediction.answer,
}
