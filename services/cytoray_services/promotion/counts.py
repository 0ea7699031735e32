"""Scores of weighted images, without scoring the images again and again.

Most scores are ratios of sums over images, so that counts of each image are enough. They are used only where they give
the task's own score over all images; any other score is taken by the task itself, drawn images and all, which is
slower and always right.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.tasks.image_scores import pearson
from cytoray_analysis.tasks.instance_scores import overlap
from cytoray_analysis.tasks.semantic import UNKNOWN
from cytoray_analysis.tracking.scores import compare, division_f1

Numbers = NDArray[np.float64]
Weights = NDArray[np.int64]
Score = Callable[[Sequence[Any], Sequence[Any]], dict[str, float]]
Counted = tuple[Numbers, Callable[[Numbers], Numbers]]


def pooled_score(
    metric: str, answers: Sequence[Any], truths: Sequence[Any], score: Score
) -> tuple[Callable[[Weights], Numbers], bool]:
    """Return a function from weights (n, images) to the scores (n,) of so many copies of each image.

    Parameters
    ----------
    metric
        Which of the scores.
    answers, truths
        Image by image.
    score
        The task's own.

    Returns
    -------
    tuple
        The function, and whether it counts, which takes no time.
    """
    if metric in _COUNTS:
        counts, value = _COUNTS[metric](answers, truths)
        if math.isclose(float(value(counts.sum(axis=0)[None])[0]), score(answers, truths)[metric], abs_tol=1e-6):
            return lambda weights: value(weights @ counts), True

    @functools.cache
    def again(weights: tuple[int, ...]) -> float:
        drawn = np.repeat(np.arange(len(answers)), weights).tolist()
        return score([answers[index] for index in drawn], [truths[index] for index in drawn])[metric]

    return lambda weights: np.array([again(tuple(row)) for row in weights.tolist()]), False


def _found_objects(answers: Sequence[Any], truths: Sequence[Any]) -> Counted:
    """Count, at an IoU of 0.5, the objects found, and all that are in truth or answer."""
    rows = []
    for answer, truth in zip(answers, truths, strict=True):
        both = overlap(answer, truth)
        found = len(both.matches(0.5))
        rows.append((found, both.truths + both.answers - found))
    return np.array(rows, np.float64), lambda sums: _ratio(sums[:, 0], sums[:, 1])


def _recalled_classes(answers: Sequence[Any], truths: Sequence[Any]) -> Counted:
    """Count the cells of each class, and those that were recognised."""
    classes = answers[0].shape[1]
    rows = []
    for answer, truth in zip(answers, truths, strict=True):
        known = truth >= 0
        right = known & (answer.argmax(axis=1) == truth)
        rows.append([np.bincount(truth[chosen], minlength=classes) for chosen in (right, known)])

    def balanced(sums: Numbers) -> Numbers:
        right, known = sums[:, :classes], sums[:, classes:]
        recall = np.where(known > 0, right / np.maximum(known, 1), 0.0)
        return _ratio(recall.sum(axis=1), (known > 0).sum(axis=1).astype(np.float64))

    return np.array(rows, np.float64).reshape(len(rows), -1), balanced


def _correlations(answers: Sequence[Any], truths: Sequence[Any]) -> Counted:
    """Add up the correlations of the channels of each image that have one."""
    rows = []
    for answer, truth in zip(answers, truths, strict=True):
        each = np.array([pearson(answer[channel], truth[channel]) for channel in range(len(truth))])
        rows.append((each[np.isfinite(each)].sum(), np.isfinite(each).sum()))
    return np.array(rows, np.float64), lambda sums: np.where(sums[:, 1] > 0, sums[:, 0] / np.maximum(sums[:, 1], 1), 0)


def _class_areas(answers: Sequence[Any], truths: Sequence[Any]) -> Counted:
    """Count pixels by true and answered class; a truth below 0 or of 255 is unknown."""
    classes = 1 + max(int(one[one != UNKNOWN].max(initial=0)) for one in (*answers, *truths))
    rows = []
    for answer, truth in zip(answers, truths, strict=True):
        known = (truth >= 0) & (truth != UNKNOWN)
        index = truth[known].astype(np.int64) * classes + answer[known]
        rows.append(np.bincount(index, minlength=classes**2))

    def mean_iou(sums: Numbers) -> Numbers:
        tables = sums.reshape(-1, classes, classes)
        shared = np.diagonal(tables, axis1=1, axis2=2)
        either = tables.sum(axis=1) + tables.sum(axis=2) - shared
        occurs = either > 0
        return _ratio(np.where(occurs, shared / np.maximum(either, 1), 0.0).sum(axis=1), occurs.sum(axis=1))

    return np.array(rows, np.float64), mean_iou


def _divisions(answers: Sequence[Any], truths: Sequence[Any]) -> Counted:
    """Count the divisions found, twice, and all that are in truth or answer; the first follow from each F1."""
    rows = []
    for answer, truth in zip(answers, truths, strict=True):
        both = _mothers(answer) + _mothers(truth)
        rows.append((division_f1(compare([answer], [truth]))[0] * both if both else 0.0, both))
    return np.array(rows, np.float64), lambda sums: _ratio(sums[:, 0], sums[:, 1])


def _mothers(lineage: Any) -> int:
    parents = lineage.tracks[:, 3]
    return int(np.count_nonzero(np.unique(parents[parents > 0], return_counts=True)[1] > 1))


def _ratio(part: Numbers, whole: Numbers) -> Numbers:
    return np.where(whole > 0, part / np.maximum(whole, 1), 1.0)


_COUNTS: dict[str, Callable[[Sequence[Any], Sequence[Any]], Counted]] = {
    "ap50": _found_objects,
    "iou": _class_areas,
    "balanced_accuracy": _recalled_classes,
    "pearson": _correlations,
    "division_f1": _divisions,
}
