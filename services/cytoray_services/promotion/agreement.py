"""Agreement of the answers of a model between precisions, and between devices.

One set of answers is scored with the other as truth, and both with the real truth, by the score of the task. An unsure
model flips many answers near a threshold, in both directions, without becoming worse or better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.devices import Precision
from cytoray_analysis.predictor import Prediction, Predictor
from cytoray_services.datasets import Dataset
from cytoray_services.evaluation.evaluation import evaluate
from cytoray_services.kinds import data_kind
from cytoray_services.kinds.evaluated import Evaluation

MOST_IMAGES = 12  # evenly spaced; processors without native bf16 are slow


@dataclass(frozen=True)
class Agreement:
    """Agreement of answers with those in fp32 on the CPU.

    Attributes
    ----------
    alike
        The first score of the task with the other answers as truth; 1 if all are equal; None if there is nothing to
        count.
    change
        Change of the score with the real truth; None if there is nothing to count.
    """

    alike: float | None
    change: float | None


def agreement(bundle: Bundle, dataset: Dataset) -> dict[str, Agreement | None]:
    """Compare the answers in fp32 on the CPU with those in bf16 and those on the accelerator.

    Returns
    -------
    dict
        By ``bf16`` and ``accelerator``. None without a comparison: no accelerator, or a kind of model that always
        uses fp32.
    """
    images = dataset.images
    chosen = images[:: max(1, -(-len(images) // MOST_IMAGES))]
    few = replace(dataset, items=tuple(item for items in chosen for item in items))

    def evaluated(device: str, precision: Precision) -> Evaluation:
        return evaluate(Predictor(bundle, device=device, precision=precision), few)

    reference = evaluated("cpu", "fp32")

    def compared(device: str, precision: Precision) -> Agreement:
        return _compare(evaluated(device, precision), reference)

    always_fp32 = reference.items[0].prediction.inference.precision == "fp32"
    return {
        "bf16": None if always_fp32 else compared("cpu", "bf16"),
        "accelerator": compared("cuda", "fp32") if torch.cuda.is_available() else None,
    }


def _compare(other: Evaluation, reference: Evaluation) -> Agreement:
    answers, truths = ([one.prediction for one in evaluation.items] for evaluation in (other, reference))
    metric = reference.metric
    before, after = reference.metrics.get(metric), other.metrics.get(metric)
    change = None if before is None or after is None else after - before
    return Agreement(score_alike(answers, truths).get(metric), change)


def score_alike(answers: Sequence[Prediction], reference: Sequence[Prediction]) -> dict[str, float]:
    """Score answers with other answers to the same images, in the same order, as truth."""
    task, as_truth = answers[0].inference.task, data_kind(answers[0].kind).as_truth
    return task.score([one.scored for one in answers], [as_truth(one) for one in reference])
