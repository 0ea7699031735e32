"""Validation with the real thing: the weights become a bundle, and a ``Predictor`` answers for whole images."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, distributed

from cytoray_analysis.bundle import write_bundle
from cytoray_analysis.predictor import Predictor
from cytoray_services.datasets import Dataset, Item, read_labelled
from cytoray_services.evaluation import scored
from cytoray_training.cache import Source
from cytoray_training.engine import rank, world_size
from cytoray_training.plan import Plan

Images = tuple[Item, ...]
# Of so many validation images one training image is scored beside them, up to a few: what it costs stays small.
_IMAGES_PER_SAMPLE, _LARGEST_SAMPLE = 4, 8


def validate(
    plan: Plan, source: Source, weights: Mapping[str, Tensor], device: str
) -> tuple[dict[str, float], dict[str, float] | None]:
    """Score weights on the validation images, which are divided among the workers. Every worker must call it.

    Returns
    -------
    tuple
        The task's metrics, pooled over all validation images; and over a fixed few of the training images, None where
        there are too few validation images for that to be cheap. The same on every worker.
    """
    training, validation = plan.dataset.split("train"), plan.dataset.split("val")
    known = evenly_chosen(training.images, min(len(validation.images) // _IMAGES_PER_SAMPLE, _LARGEST_SAMPLE))
    with tempfile.TemporaryDirectory(prefix="cytoray-validation-") as folder:
        predictor = predictor_for(plan, source, weights, Path(folder) / "bundle", device)
        scores = _score(plan, predictor, validation, validation.images)
        return scores, _score(plan, predictor, training, known) if known else None


def evenly_chosen(images: Sequence[Images], count: int) -> list[Images]:
    """Return about `count` of the images, as far from each other as their order allows."""
    return list(images[:: -(-len(images) // count)]) if count else []


def _score(plan: Plan, predictor: Predictor, dataset: Dataset, images: Sequence[Images]) -> dict[str, float]:
    answers: dict[int, Any] = {}
    truths: dict[int, Any] = {}
    for index in range(rank(), len(images), world_size()):
        labelled = read_labelled(dataset, images[index], plan.chosen_task.arguments)
        answers[index] = scored(predictor.predict(labelled.image, labelled.objects))
        truths[index] = labelled.truth
    everything = _gathered(answers)
    found: list[dict[str, float] | None] = [None]
    if everything is not None:
        for index in everything.keys() - truths.keys():
            truths[index] = read_labelled(dataset, images[index], plan.chosen_task.arguments).truth
        order = sorted(everything)
        found = [plan.task.score([everything[index] for index in order], [truths[index] for index in order])]
    if world_size() > 1:
        distributed.broadcast_object_list(found, src=0)
    metrics = found[0]
    assert metrics is not None  # noqa: S101 - worker 0 has sent them
    return metrics


def predictor_for(
    plan: Plan, source: Source, weights: Mapping[str, Tensor], folder: Path, device: str | None
) -> Predictor:
    """Make a predictor of weights in training, through a bundle in `folder`."""
    spec = plan.bundle_spec(source.statistics)
    blank = np.zeros((plan.examples.inputs(plan.model_input), *plan.crop), np.float32)
    bundle = write_bundle(folder, spec, weights, test_input=blank, card="In training.\n")
    precision = plan.recipe.training.precision
    return Predictor(bundle, device=device, precision=None if precision == "auto" else precision)


def _gathered(answers: dict[int, Any]) -> dict[int, Any] | None:
    """Bring the answers of all workers to worker 0; None on the others."""
    if world_size() == 1:
        return answers
    parts: list[dict[int, Any] | None] | None = [None] * world_size() if rank() == 0 else None
    distributed.gather_object(answers, parts, dst=0)
    return None if parts is None else {index: answer for part in parts if part for index, answer in part.items()}
