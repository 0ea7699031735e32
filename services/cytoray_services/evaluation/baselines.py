"""Baselines without learning, which a model must clearly exceed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.bundle import BundleSpec
from cytoray_analysis.tasks import get_task
from cytoray_services.datasets import Dataset, Labelled, read_parts
from cytoray_services.kinds import data_kind


def baseline_scores(dataset: Dataset, chosen: Dataset, spec: BundleSpec) -> dict[str, float]:
    """Score the baseline of a kind of truth with the metrics of a model.

    Parameters
    ----------
    dataset
        The data set, with its training split, if there is one.
    chosen
        The part to score.
    spec
        The model to compare with the baseline.
    """
    training = dataset.split("train") if "train" in dataset.splits else chosen
    baseline = data_kind(dataset.truth_kind).baseline
    return baseline(lambda: _read(training, spec), _read(chosen, spec), spec)


def scores_of(answers: Sequence[Any], labelled: Sequence[Labelled], spec: BundleSpec) -> dict[str, float]:
    """Score answers with the metrics of a model."""
    return get_task(spec.task.name, spec.task.arguments).score(answers, [one.truth for one in labelled])


def channels_of(one: Labelled, dimensions: int) -> NDArray[np.float32]:
    """Return (C, spatial…) with as many spatial axes as the truth; planes of a stack beyond those become channels."""
    image = one.image
    axes = "C" + "".join(axis for axis in image.axes if axis in "ZYX")
    pixels: NDArray[np.float32] = image.select(axes).read().astype(np.float32)
    return pixels.reshape(-1, *pixels.shape[-dimensions:])


def _read(dataset: Dataset, spec: BundleSpec) -> list[Labelled]:
    return [part for items in dataset.images for part in read_parts(dataset, items, spec.task.arguments)]
