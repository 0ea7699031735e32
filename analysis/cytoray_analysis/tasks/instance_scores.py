"""How well predicted objects match true ones: counts of each image, and scores of their sums over images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.tasks.object_errors import ERRORS, count_errors
from cytoray_analysis.tasks.overlap import Overlap, known_part, overlap
from cytoray_analysis.tasks.surfaces import near_surfaces

Numbers = NDArray[np.float64]

THRESHOLDS = tuple(step / 20 for step in range(10, 20))  # 0.50, 0.55 … 0.95
_COLUMNS = (
    *(f"matched{round(100 * threshold)}" for threshold in THRESHOLDS),
    *("quality", "truths", "answers", "shared", "inside", "predicted"),
    *("near", "surface", "miscounted", "accuracy", "images"),
    *ERRORS,
)
_AT = {name: place for place, name in enumerate(_COLUMNS)}


def count_objects(answer: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]]) -> Numbers:
    """Count of one image what its scores need: a row for :data:`SCORES`.

    Parameters
    ----------
    answer, truth
        Label images of one shape; 0 is background, ids need not be consecutive. Pixels whose truth is below 0 are
        unknown: see :func:`cytoray_analysis.tasks.overlap.known_part`.
    """
    answer, truth, known = known_part(answer, truth)
    both = overlap(answer, truth)
    matched = _matched(both)
    return np.array(
        [
            *(np.count_nonzero(matched >= threshold) for threshold in THRESHOLDS),
            *(matched.sum(), both.truths, both.answers, *both.foreground),
            *near_surfaces(answer, truth, known),
            *(abs(both.answers - both.truths), image_accuracy(both) or 0.0, bool(both.truths or both.answers)),
            *count_errors([both]).values(),
        ],
        np.float64,
    )


def image_accuracy(both: Overlap) -> float | None:
    """Return the segmentation accuracy of an image, TP / (TP + FP + FN) averaged over :data:`THRESHOLDS`.

    None where there is neither a true nor a predicted object.
    """
    objects = both.truths + both.answers
    if not objects:
        return None
    found = np.count_nonzero(_matched(both)[:, None] >= np.array(THRESHOLDS), axis=0)
    return float((found / (objects - found)).mean())


def mean_accuracy(overlaps: Sequence[Overlap]) -> float:
    """Return the mean segmentation accuracy over images that have objects, as the score ``msa``; 0 without any."""
    values = [value for both in overlaps if (value := image_accuracy(both)) is not None]
    return float(np.mean(values)) if values else 0.0


def score_instances(rows: Sequence[Numbers]) -> dict[str, float]:
    """Score images from their counts (:func:`count_objects`).

    Returns
    -------
    dict
        ``msa``: mean segmentation accuracy, TP / (TP + FP + FN) at IoU 0.50, 0.55 … 0.95, averaged per image and then
        over the images with objects (Caicedo et al., Nat Methods 16, 1247 (2019)); ``msa_pooled``: the same over all
        images together. Over all images together: ``ap50``, ``ap70``, ``ap75``, ``ap90``: TP / (TP + FP + FN) at that
        IoU (Schmidt et al., MICCAI 2018, arXiv:1806.03535); ``precision50``, ``recall50``, ``f1_50``: of objects at an
        IoU of 0.5; ``pq``: panoptic quality (Kirillov et al., CVPR 2019, arXiv:1801.00868); ``iou``, ``dice``: Jaccard
        and Dice index of the foregrounds; ``surface_dice``: share of surface pixels within 1 pixel of the other surface
        (:func:`~cytoray_analysis.tasks.surfaces.near_surfaces`). All these between 0 and 1. ``count_error``: sum over
        images of the difference between the numbers of predicted and true objects, divided by the number of true
        objects. ``split``, ``merged``, ``missed``, ``invented``:
        :func:`~cytoray_analysis.tasks.object_errors.count_errors`. A score is absent where it is a share of nothing:
        all of them where there is neither truth nor answer, recall without a true object, precision without a predicted
        one.
    """
    total = np.sum(rows, axis=0)[None] if rows else np.zeros((1, len(_COLUMNS)))
    if not total[0, _AT["images"]]:
        return {}
    found = {name: float(value(total)[0]) for name, value in SCORES.items()}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _matched(both: Overlap) -> Numbers:
    """Return the IoU of each pair that matches at 0.5; above that, no other partner is possible."""
    return both.iou[both.matches(THRESHOLDS[0])]


def _ratio(part: Callable[[Numbers], Numbers], whole: Callable[[Numbers], Numbers]) -> Callable[[Numbers], Numbers]:
    def value(sums: Numbers) -> Numbers:
        below = whole(sums)
        ratios: Numbers = np.divide(part(sums), below, out=np.full(len(sums), np.nan), where=below > 0)
        return ratios

    return value


def _sum(*names: str, times: float = 1.0) -> Callable[[Numbers], Numbers]:
    places = [_AT[name] for name in names]

    def value(sums: Numbers) -> Numbers:
        total: Numbers = times * sums[:, places].sum(axis=1)
        return total

    return value


def _without(names: tuple[str, ...], less: str) -> Callable[[Numbers], Numbers]:
    every = _sum(*names)
    return lambda sums: every(sums) - sums[:, _AT[less]]


def _accuracy(threshold: float) -> Callable[[Numbers], Numbers]:
    found = f"matched{round(100 * threshold)}"
    return _ratio(_sum(found), _without(("truths", "answers"), found))


def _pooled_accuracy(sums: Numbers) -> Numbers:
    mean: Numbers = np.mean([_accuracy(threshold)(sums) for threshold in THRESHOLDS], axis=0)
    return mean


_OBJECTS = ("truths", "answers")
# By score: from sums of counts (n, columns) to values (n,), NaN where it is a share of nothing.
SCORES: Mapping[str, Callable[[Numbers], Numbers]] = {
    "msa": _ratio(_sum("accuracy"), _sum("images")),
    "ap50": _accuracy(0.5),
    "precision50": _ratio(_sum("matched50"), _sum("answers")),
    "recall50": _ratio(_sum("matched50"), _sum("truths")),
    "f1_50": _ratio(_sum("matched50", times=2), _sum(*_OBJECTS)),
    "pq": _ratio(_sum("quality", times=2), _sum(*_OBJECTS)),
    "ap70": _accuracy(0.7),
    "ap75": _accuracy(0.75),
    "ap90": _accuracy(0.9),
    "msa_pooled": _pooled_accuracy,
    "surface_dice": _ratio(_sum("near"), _sum("surface")),
    "iou": _ratio(_sum("shared"), _without(("inside", "predicted"), "shared")),
    "dice": _ratio(_sum("shared", times=2), _sum("inside", "predicted")),
    "count_error": _ratio(_sum("miscounted"), _sum("truths")),
    **{name: _sum(name) for name in ERRORS},
}
METRICS = tuple(SCORES)
