"""Validation with the real thing: the weights become a bundle, and a ``Predictor`` answers for whole images."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, distributed

from cytoray_analysis.bundle import write_bundle
from cytoray_analysis.images import Image, image_from_array
from cytoray_analysis.predictor import Predictor
from cytoray_training.cache import Cache, Split
from cytoray_training.engine import rank, world_size
from cytoray_training.plan import Plan


def validate(
    plan: Plan, cache: Cache, weights: Mapping[str, Tensor], device: str, split: str = "val"
) -> dict[str, float]:
    """Score weights on a split, its images divided among the workers. Every worker must call it.

    Returns
    -------
    dict
        The task's metrics, pooled over all images; the same on every worker.
    """
    images = cache.splits[split]
    order = np.argsort([-int(np.prod(entry.shape)) for entry in images.entries], kind="stable")
    mine = [int(index) for index in order[rank() :: world_size()]]
    with tempfile.TemporaryDirectory(prefix="cytoray-validation-") as folder:
        predictor = predictor_for(plan, cache, weights, Path(folder) / "bundle", device)
        answers = {index: predictor.predict(image_of(plan, images, index)).answer for index in mine}
    everything = _gathered(answers)
    found: list[dict[str, float] | None] = [None]
    if everything is not None:
        truths = [images.labels_of(index) for index in range(len(images.entries))]
        found = [plan.task.score([everything[index] for index in range(len(truths))], truths)]
    if world_size() > 1:
        distributed.broadcast_object_list(found, src=0)
    metrics = found[0]
    assert metrics is not None  # noqa: S101 - worker 0 has sent them
    return metrics


def predictor_for(
    plan: Plan, cache: Cache, weights: Mapping[str, Tensor], folder: Path, device: str | None
) -> Predictor:
    """Make a predictor of weights in training, through a bundle in `folder`."""
    blank = np.zeros((len(plan.model_input.channels), 64, 64), np.float32)
    bundle = write_bundle(folder, plan.bundle_spec(cache.statistics), weights, test_input=blank, card="In training.\n")
    precision = plan.recipe.training.precision
    return Predictor(bundle, device=device, precision=None if precision == "auto" else precision)


def image_of(plan: Plan, split: Split, index: int) -> Image:
    """Return a cached image as the predictor takes it."""
    return image_from_array(
        split.pixels_of(index),
        plan.model_input.axes,
        channels=plan.model_input.channels,
        source=split.entries[index].file,
    )


def _gathered(answers: dict[int, NDArray[Any]]) -> dict[int, NDArray[Any]] | None:
    """Bring the answers of all workers to worker 0; None on the others."""
    if world_size() == 1:
        return answers
    parts: list[dict[int, NDArray[Any]] | None] | None = [None] * world_size() if rank() == 0 else None
    distributed.gather_object(answers, parts, dst=0)
    return None if parts is None else {index: answer for part in parts if part for index, answer in part.items()}
