"""What can be had without learning: the floor that a model must be well above."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.bundle import BundleSpec
from cytoray_analysis.label_free_baseline import baseline_scores as stain_baseline
from cytoray_analysis.tasks import get_task
from cytoray_analysis.threshold import threshold_and_split
from cytoray_analysis.tracking.baseline import overlap_then_distance
from cytoray_analysis.tracking.linking import link_movie
from cytoray_services.datasets import Dataset, Labelled, read_parts


def baseline_scores(dataset: Dataset, chosen: Dataset, spec: BundleSpec) -> dict[str, float]:
    """Score what needs no learning with the metrics of a model.

    Labels: Otsu's threshold and a watershed. Classes: the commonest class of the training split. Images: the best
    simple function of the input, chosen on the training split. Lineages: overlap, then distance.

    Parameters
    ----------
    dataset
        With its training split, where it has one.
    chosen
        What is scored.
    spec
        The model beside which the baseline stands.
    """
    return _BASELINES[dataset.truth_kind](dataset, chosen, spec)


def _read(dataset: Dataset, spec: BundleSpec) -> list[Labelled]:
    return [part for items in dataset.images for part in read_parts(dataset, items, spec.task.arguments)]


def _training(dataset: Dataset, chosen: Dataset) -> Dataset:
    return dataset.split("train") if "train" in dataset.splits else chosen


def _score(spec: BundleSpec, answers: Sequence[Any], labelled: Sequence[Labelled]) -> dict[str, float]:
    return get_task(spec.task.name, spec.task.arguments).score(answers, [one.truth for one in labelled])


def _labels(dataset: Dataset, chosen: Dataset, spec: BundleSpec) -> dict[str, float]:
    labelled = _read(chosen, spec)
    answers = [threshold_and_split(_channels(one, one.truth.ndim).mean(axis=0)) for one in labelled]
    return _score(spec, answers, labelled)


def _classes(dataset: Dataset, chosen: Dataset, spec: BundleSpec) -> dict[str, float]:
    truths = np.concatenate([one.truth for one in _read(_training(dataset, chosen), spec)])
    shares = (np.bincount(truths, minlength=len(spec.task.arguments["classes"])) / len(truths)).astype(np.float32)
    labelled = _read(chosen, spec)
    return _score(spec, [np.repeat(shares[None], len(one.truth), axis=0) for one in labelled], labelled)


def _images(dataset: Dataset, chosen: Dataset, spec: BundleSpec) -> dict[str, float]:
    training, validation = (
        [(_channels(one, one.truth.ndim - 1), one.truth) for one in _read(part, spec)]
        for part in (_training(dataset, chosen), chosen)
    )
    return stain_baseline(training, validation, spec.task.arguments["channels"])


def _lineages(dataset: Dataset, chosen: Dataset, spec: BundleSpec) -> dict[str, float]:
    labelled = _read(chosen, spec)
    parameters = get_task(spec.task.name, spec.task.arguments).output.defaults()
    answers = [link_movie(one.image, one.objects, overlap_then_distance, parameters) for one in labelled]
    return _score(spec, answers, labelled)


def _channels(one: Labelled, dimensions: int) -> NDArray[np.float32]:
    """Return (C, spatial…) with as many spatial axes as the truth; planes of a stack beyond those become channels."""
    image = one.image
    axes = "C" + "".join(axis for axis in image.axes if axis in "ZYX")
    pixels: NDArray[np.float32] = image.select(axes).read().astype(np.float32)
    return pixels.reshape(-1, *pixels.shape[-dimensions:])


_BASELINES: dict[str, Callable[[Dataset, Dataset, BundleSpec], dict[str, float]]] = {
    "labels": _labels,
    "class": _classes,
    "image": _images,
    "lineage": _lineages,
}
