"""Validation with the real thing: the weights become a bundle, and a ``Predictor`` answers for whole images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, distributed

from cytoray_analysis.bundle import write_bundle
from cytoray_analysis.predictor import Predictor
from cytoray_services.datasets import Dataset, Item
from cytoray_services.evaluation import scored
from cytoray_training.cache import Source
from cytoray_training.engine import rank, world_size
from cytoray_training.kept_images import KeptImages
from cytoray_training.plan import Plan

Images = tuple[Item, ...]
# Of so many validation images one training image is scored beside them, up to a few: what it costs stays small.
_IMAGES_PER_SAMPLE, _LARGEST_SAMPLE = 4, 8


def validate(
    plan: Plan,
    source: Source,
    weights: Mapping[str, Tensor],
    device: str,
    *,
    images: KeptImages | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> tuple[dict[str, float], dict[str, float] | None] | None:
    """Score weights on the validation images, which are divided among the workers. Every worker must call it.

    Parameters
    ----------
    images
        What reads them, and keeps them from one validation to the next; None reads them for this one.
    stopping
        Looked at before each image: whether to give up.

    Returns
    -------
    tuple
        The task's metrics, pooled over all validation images; and over a fixed few of the training images, None where
        there are too few validation images for that to be cheap. The same on every worker. None where any worker
        gave up.
    """
    images = images or KeptImages(plan.chosen_task.arguments)
    training, validation = plan.dataset.split("train"), plan.dataset.split("val")
    known = evenly_chosen(training.images, min(len(validation.images) // _IMAGES_PER_SAMPLE, _LARGEST_SAMPLE))
    with tempfile.TemporaryDirectory(prefix="cytoray-validation-") as folder:
        predictor = predictor_for(plan, source, weights, Path(folder) / "bundle", device)
        scores = _score(plan, predictor, images, validation, validation.images, stopping)
        if scores is None or not known:
            return None if scores is None else (scores, None)
        training_scores = _score(plan, predictor, images, training, known, stopping)
        return None if training_scores is None else (scores, training_scores)


def evenly_chosen(images: Sequence[Images], count: int) -> list[Images]:
    """Return about `count` of the images, as far from each other as their order allows."""
    return list(images[:: -(-len(images) // count)]) if count else []


def _score(
    plan: Plan,
    predictor: Predictor,
    kept: KeptImages,
    dataset: Dataset,
    images: Sequence[Images],
    stopping: Callable[[], bool],
) -> dict[str, float] | None:
    answers: dict[int, Any] = {}
    truths: dict[int, Any] = {}
    given_up = False
    for index in range(rank(), len(images), world_size()):
        given_up = stopping()
        if given_up:
            break
        parts = kept.parts(dataset, images[index])
        answers[index] = [scored(predictor.predict(one.image, one.objects)) for one in parts]
        truths[index] = [one.truth for one in parts]
    if _any_worker(given_up):
        return None
    everything = _gathered(answers)
    found: list[dict[str, float] | None] = [None]
    if everything is not None:
        for index in everything.keys() - truths.keys():
            parts = kept.parts(dataset, images[index])
            truths[index] = [one.truth for one in parts]
        order = sorted(everything)
        answered, true = ([one for index in order for one in by_image[index]] for by_image in (everything, truths))
        found = [plan.task.score(answered, true)]
    if world_size() > 1:
        distributed.broadcast_object_list(found, src=0)
    metrics = found[0]
    assert metrics is not None  # noqa: S101 - worker 0 has sent them
    return metrics


def _any_worker(flag: bool) -> bool:
    if world_size() == 1:
        return flag
    flags = [False] * world_size()
    distributed.all_gather_object(flags, flag)
    return any(flags)


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
