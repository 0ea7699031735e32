"""Validation as in production: a ``Predictor`` with the current weights answers for whole images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, distributed

from cytoray_analysis.bundle import ModelInMemory
from cytoray_analysis.predictor import Predictor
from cytoray_services.datasets import Dataset, Item
from cytoray_training.data.cache import Source
from cytoray_training.data.kept_images import KeptImages
from cytoray_training.engines.engine import rank, world_size
from cytoray_training.plan.image_kinds import kind_of, mean_scores
from cytoray_training.plan.plan import Plan

Images = tuple[Item, ...]
# One training image is scored per this many validation images, up to a few, so the cost is small.
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
    """Score weights on the validation images, divided among the workers. Every worker must call it.

    Parameters
    ----------
    images
        Reads them, and caches them between validations; None reads them for this one.
    stopping
        Called before each image: whether to stop.

    Returns
    -------
    tuple
        The task's metrics over all validation images, or their means over kinds of images with ``data.shares``; and
        over a small fixed set of training images, None if there are too few validation images for that. The same on
        every worker. None if any worker stopped.
    """
    images = images or KeptImages(plan.chosen_task.arguments)
    training, validation = plan.dataset.split("train"), plan.dataset.split("val")
    known = evenly_chosen(training.images, min(len(validation.images) // _IMAGES_PER_SAMPLE, _LARGEST_SAMPLE))
    predictor = predictor_for(plan, source, weights, device)
    scores = _score(plan, predictor, images, validation, validation.images, stopping)
    if scores is None or not known:
        return None if scores is None else (scores, None)
    training_scores = _score(plan, predictor, images, training, known, stopping)
    return None if training_scores is None else (scores, training_scores)


def evenly_chosen(images: Sequence[Images], count: int) -> list[Images]:
    """Return about `count` of the images, evenly spaced in their order."""
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
        answers[index] = [predictor.predict(one.image, one.objects).scored for one in parts]
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
        kinds = [kind_of(images[index][0], plan.recipe) for index in order for _ in everything[index]]
        found = [mean_scores(_by_kind(plan, kinds, answered, true))]
    if world_size() > 1:
        distributed.broadcast_object_list(found, src=0)
    metrics = found[0]
    assert metrics is not None  # noqa: S101 - worker 0 has sent them
    return metrics


def _by_kind(plan: Plan, kinds: Sequence[str], answers: Sequence[Any], truths: Sequence[Any]) -> list[dict[str, float]]:
    """Score the images of each kind, one kind after the other."""
    task = plan.task
    chosen = [[at for at, kind in enumerate(kinds) if kind == one] for one in dict.fromkeys(kinds)]
    return [task.score([answers[at] for at in part], [truths[at] for at in part]) for part in chosen]


def _any_worker(flag: bool) -> bool:
    if world_size() == 1:
        return flag
    flags = [False] * world_size()
    distributed.all_gather_object(flags, flag)
    return any(flags)


def predictor_for(plan: Plan, source: Source, weights: Mapping[str, Tensor], device: str | None = None) -> Predictor:
    """Create a predictor with the current weights."""
    precision = plan.recipe.training.precision
    model = ModelInMemory(plan.bundle_spec(source.statistics), weights)
    return Predictor(model, device=device, precision=None if precision == "auto" else precision)


def _gathered(answers: dict[int, Any]) -> dict[int, Any] | None:
    """Gather the answers of all workers on worker 0; None on the others."""
    if world_size() == 1:
        return answers
    parts: list[dict[int, Any] | None] | None = [None] * world_size() if rank() == 0 else None
    distributed.gather_object(answers, parts, dst=0)
    return None if parts is None else {index: answer for part in parts if part for index, answer in part.items()}
