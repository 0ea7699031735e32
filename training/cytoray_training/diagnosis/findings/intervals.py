"""How sure a score is, from the scores of single images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cytoray_training.diagnosis.facts import Cells, Ending, ImageScore

_RESAMPLES = 2000
_LEVEL = 0.95


def score_interval(ending: Ending) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval of the validation score; None with fewer than two validation images.

    The percentile method (Efron, Ann. Stat. 7, 1 (1979)). Cells are resampled where there are classes, with the mean
    recall or accuracy as score; else images, each weighing as many objects as it holds.
    """
    cells = ending.cells.get("val", Cells())
    if cells.truth:
        return _of_cells(cells, ending.metric)
    images = of_split(ending.images, "val")
    if len(images) < 2:
        return None
    scores = np.array([image.score for image in images])
    weights = np.array([max(image.objects, 1) for image in images], dtype=float)
    chosen = _generator().integers(len(scores), size=(_RESAMPLES, len(scores)))
    return _ends((scores * weights)[chosen].sum(axis=1) / weights[chosen].sum(axis=1))


def of_split(images: Sequence[ImageScore], split: str) -> list[ImageScore]:
    """Return the images of one split."""
    return [image for image in images if image.split == split]


def _of_cells(cells: Cells, metric: str) -> tuple[float, float] | None:
    if len(cells.truth) < 2:
        return None
    truth, right = np.array(cells.truth), np.array(cells.truth) == np.array(cells.predicted)
    chosen = _generator().integers(len(truth), size=(_RESAMPLES, len(truth)))
    if metric == "accuracy":
        return _ends(right[chosen].mean(axis=1))
    recalls = []
    for number in np.unique(truth):
        of_class = truth[chosen] == number
        with np.errstate(invalid="ignore"):
            recalls.append((of_class & right[chosen]).sum(axis=1) / of_class.sum(axis=1))
    return _ends(np.nanmean(np.stack(recalls), axis=0))


def _ends(scores: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(scores, ((1 - _LEVEL) / 2, (1 + _LEVEL) / 2))
    return float(low), float(high)


def _generator() -> np.random.Generator:
    return np.random.default_rng(0)  # the same facts, the same findings
