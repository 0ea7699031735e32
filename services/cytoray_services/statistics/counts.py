"""Scores of weighted images, for all scores of a task at once, without scoring the images repeatedly.

Most scores are ratios of sums over images, so counts of each image are sufficient. They are used only if they give the
score of the task over all images. Any other score is computed once without each unit, and its change is assumed to be
linear in the weights (the jackknife: Efron, Ann. Stat. 7, 1 (1979)).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.tasks.class_values import UNKNOWN
from cytoray_analysis.tasks.instance_scores import SCORES, count_objects
from cytoray_analysis.tracking.scores import compare, division_f1

Numbers = NDArray[np.float64]
Answers = Sequence[Any]
Score = Callable[[Answers, Answers], dict[str, float]]
Values = Mapping[str, Callable[[Numbers], Numbers]]
Counted = tuple[Numbers, Values]

_BINS = 15  # of the expected calibration error, as in the task
_ALONE_AT_ONCE = 2_000_000  # weights in memory


@dataclass(frozen=True, eq=False)
class Weighted:
    """A score from sums over units; called with weights (n, units), it returns values (n,).

    Attributes
    ----------
    counts
        (units, columns).
    value
        From sums (n, columns) to values (n,); NaN if there is nothing to count. Additional columns of zeros have no
        effect.
    """

    counts: Numbers
    value: Callable[[Numbers], Numbers]

    def __call__(self, weights: Numbers) -> Numbers:
        """Return the score with these numbers of copies of each unit."""
        return self.value(weights @ self.counts)


def ratio_of(part: Numbers, whole: Numbers) -> Weighted:
    """Return the score as a ratio of two sums over units."""
    return Weighted(np.stack([part, whole], axis=1), lambda sums: _ratio(sums[:, 0], sums[:, 1]))


@dataclass(frozen=True, eq=False)
class UnitScores:
    """The scores of any number of copies of each unit.

    Attributes
    ----------
    whole
        The scores of the task over all units.
    units
        Number of units.
    counted
        Names of the scores from counts, which are exact for any weights.
    of
        By score: its value for any weights of the units.
    """

    whole: Mapping[str, float]
    units: int
    counted: frozenset[str]
    of: Mapping[str, Weighted]

    def carrying(self, metric: str) -> int:
        """Return the number of units with anything to count of a score."""
        at_once = max(1, _ALONE_AT_ONCE // max(self.units, 1))
        return sum(
            int(np.isfinite(self.of[metric](np.eye(min(at_once, self.units - start), self.units, start))).sum())
            for start in range(0, self.units, at_once)
        )


def unit_scores(
    answers: Answers,
    truths: Answers,
    units: Sequence[object],
    score: Score,
    metrics: Sequence[str] | None = None,
    *,
    whole: Mapping[str, float] | None = None,
) -> UnitScores:
    """Count, unit by unit, what the scores of a task need.

    Parameters
    ----------
    answers, truths
        Image by image.
    units
        The unit of each image; units are numbered in the order of their names.
    score
        The score function of the task.
    metrics
        The scores to compute; None for all.
    whole
        The scores of the task over all images, if known.
    """
    whole = score(answers, truths) if whole is None else whole
    wanted = [name for name in whole if metrics is None or name in metrics]
    members = members_of(units)
    number = int(members.max(initial=-1)) + 1
    counts, values = _count(answers, truths, whole, score)
    summed = np.zeros((number, counts.shape[1]))
    np.add.at(summed, members, counts)
    every = summed.sum(axis=0)[None]
    exact = {name for name in wanted if name in values and _same(values[name](every), whole[name])}
    of = {name: Weighted(summed, values[name]) for name in wanted if name in exact}
    others = [name for name in wanted if name not in exact]
    if others:
        of |= _jackknifed(answers, truths, members, score, whole, others)
    return UnitScores({name: whole[name] for name in wanted}, number, frozenset(exact), of)


def members_of(units: Sequence[object]) -> NDArray[np.int64]:
    """Return the number of each image's unit."""
    return np.unique(np.array([str(unit) for unit in units]), return_inverse=True)[1].ravel().astype(np.int64)


def _same(found: Numbers, whole: float) -> bool:
    return math.isclose(float(found[0]), whole, rel_tol=1e-6, abs_tol=1e-6)


def _jackknifed(
    answers: Answers,
    truths: Answers,
    members: NDArray[np.int64],
    score: Score,
    whole: Mapping[str, float],
    names: list[str],
) -> dict[str, Weighted]:
    """Score without each unit in turn, and return the weighted mean of the pseudo-values."""
    count = int(members.max()) + 1
    without = []
    for unit in range(count):
        kept = np.flatnonzero(members != unit).tolist()
        without.append(score([answers[index] for index in kept], [truths[index] for index in kept]) if kept else {})
    pseudo = {
        name: np.array([count * whole[name] - (count - 1) * one.get(name, math.nan) for one in without])
        for name in names
    }
    return {name: _mean_of(values, whole[name]) for name, values in pseudo.items()}


def _mean_of(pseudo: Numbers, whole: float) -> Weighted:
    known = np.isfinite(pseudo)
    bias = whole - float(pseudo[known].mean()) if known.any() else math.nan
    return ratio_of(np.where(known, pseudo + bias, 0.0), known.astype(np.float64))


def _count(answers: Answers, truths: Answers, whole: Mapping[str, float], score: Score) -> Counted:
    """Count for the task with these scores; no counts if there is nothing to score."""
    for mark, count in _COUNTS.items():
        if mark in whole:
            return count(answers, truths, whole)
    if "psnr" in whole:
        return _mean_scores([score([answer], [truth]) for answer, truth in zip(answers, truths, strict=True)], whole)
    return np.zeros((len(answers), 0)), {}


def _objects(answers: Answers, truths: Answers, whole: Mapping[str, float]) -> Counted:
    """Count what the scores of objects need."""
    rows = [count_objects(answer, truth) for answer, truth in zip(answers, truths, strict=True)]
    return np.array(rows, np.float64), SCORES


def _classes(answers: Answers, truths: Answers, whole: Mapping[str, float]) -> Counted:
    """Count cells by class (correct, true, predicted), and the gap between confidence and accuracy in each bin."""
    classes = answers[0].shape[1]
    rows = []
    for answer, truth in zip(answers, truths, strict=True):
        known = truth >= 0
        true, probabilities = truth[known].astype(np.int64), answer[known]
        predicted, sure = probabilities.argmax(axis=1), probabilities.max(axis=1).astype(np.float64)
        bins = np.minimum((sure * _BINS).astype(np.int64), _BINS - 1)
        off = np.bincount(bins, weights=sure - (predicted == true), minlength=_BINS)
        rows.append(np.concatenate([off, _by_class(true, predicted, classes)]))

    def parts(sums: Numbers) -> Numbers:
        return _parts(sums[:, _BINS:])

    each: dict[str, Callable[[Numbers, Numbers, Numbers], tuple[Numbers, Numbers]]] = {
        "precision": lambda right, true, answered: (right, answered),
        "recall": lambda right, true, answered: (right, true),
        "f1": lambda right, true, answered: (2 * right, true + answered),
        "jaccard": lambda right, true, answered: (right, true + answered - right),
    }

    def macro(name: str) -> Callable[[Numbers], Numbers]:
        def value(sums: Numbers) -> Numbers:
            right, true, answered = parts(sums)
            per_class = np.nan_to_num(_ratio(*each[name](right, true, answered)))
            return _ratio((per_class * (true > 0)).sum(axis=1), (true > 0).sum(axis=1).astype(np.float64))

        return value

    def single(name: str, place: int) -> Callable[[Numbers], Numbers]:
        return lambda sums: _ratio(*each[name](*parts(sums)))[:, place]

    counts = np.array(rows, np.float64)
    _, true, answered = parts(counts.sum(axis=0)[None])
    there = np.flatnonzero((true + answered)[0] > 0).tolist()
    names = [name.partition("/")[2] for name in whole if name.startswith("f1/")]  # of the same classes, in their order
    values = {f"{name}_macro": macro(name) for name in each} | {
        "balanced_accuracy": macro("recall"),
        "accuracy": lambda sums: _ratio(parts(sums)[0].sum(axis=1), parts(sums)[1].sum(axis=1)),
        "ece": lambda sums: _ratio(np.abs(sums[:, :_BINS]).sum(axis=1), parts(sums)[1].sum(axis=1)),
    }
    if len(names) == len(there):
        values |= {f"{kind}/{name}": single(kind, at) for kind in each for name, at in zip(names, there, strict=True)}
    return counts, values


def _by_class(true: NDArray[np.int64], answered: NDArray[np.int64], classes: int) -> Numbers:
    """Count correct, true and predicted cells of each class: (3 · classes,), an additional class comes last."""
    each = (true[true == answered], true, answered)
    return np.stack([np.bincount(one, minlength=classes) for one in each], axis=1).ravel().astype(np.float64)


def _parts(sums: Numbers) -> Numbers:
    """Return the numbers of correct, true and predicted, (3, n, classes)."""
    return np.moveaxis(sums.reshape(len(sums), -1, 3), 2, 0)


def _class_areas(answers: Answers, truths: Answers, whole: Mapping[str, float]) -> Counted:
    """Count pixels by class (correct, true, predicted); a truth below 0 or of 255 is unknown."""
    classes = 1 + max(int(one[one != UNKNOWN].max(initial=0)) for one in (*answers, *truths))
    rows = []
    for answer, truth in zip(answers, truths, strict=True):
        known = (truth >= 0) & (truth != UNKNOWN)
        rows.append(_by_class(truth[known].astype(np.int64), answer[known].astype(np.int64), classes))

    def parts(sums: Numbers) -> tuple[Numbers, Numbers]:
        right, true, answered = _parts(sums)
        return right, true + answered

    def jaccard(sums: Numbers) -> Numbers:
        shared, both = parts(sums)
        return _ratio(shared, both - shared)

    def dice(sums: Numbers) -> Numbers:
        shared, both = parts(sums)
        return _ratio(2 * shared, both)

    def mean(each: Callable[[Numbers], Numbers]) -> Callable[[Numbers], Numbers]:
        def value(sums: Numbers) -> Numbers:
            found, occurs = each(sums), parts(sums)[1] > 0
            average = _ratio((np.nan_to_num(found) * occurs).sum(axis=1), occurs.sum(axis=1).astype(np.float64))
            return np.where(occurs.sum(axis=1) > 1, average, np.nan)  # needs at least two classes

        return value

    def single(each: Callable[[Numbers], Numbers], place: int) -> Callable[[Numbers], Numbers]:
        return lambda sums: each(sums)[:, place]

    counts = np.array(rows, np.float64)
    occurs = np.flatnonzero(parts(counts.sum(axis=0)[None])[1][0] > 0).tolist()
    values: dict[str, Callable[[Numbers], Numbers]] = {
        "iou": mean(jaccard),
        "dice": mean(dice),
        "accuracy": lambda sums: _ratio(parts(sums)[0].sum(axis=1), _parts(sums)[1].sum(axis=1)),
    }
    for kind, each in (("iou", jaccard), ("dice", dice)):
        names = [name for name in whole if name.startswith(f"{kind}_")]
        if len(names) == len(occurs):
            values |= {name: single(each, at) for name, at in zip(names, occurs, strict=True)}
    return counts, values


def _divisions(answers: Answers, truths: Answers, whole: Mapping[str, float]) -> Counted:
    """Count the divisions found, twice, and those in truth and answer; the former follow from each F1."""
    rows = []
    for answer, truth in zip(answers, truths, strict=True):
        both = _mothers(answer) + _mothers(truth)
        rows.append(((division_f1(compare([answer], [truth]))[0] or 0.0) * both, both))
    return np.array(rows, np.float64), {"division_f1": lambda sums: _ratio(sums[:, 0], sums[:, 1])}


def _mothers(lineage: Any) -> int:
    parents = lineage.table[:, 3]
    return int(np.count_nonzero(np.unique(parents[parents > 0], return_counts=True)[1] > 1))


def _mean_scores(each: Sequence[Mapping[str, float]], whole: Mapping[str, float]) -> Counted:
    """Count for scores that are means over images, given the scores of each image; absent scores do not count.

    With several channels, the mean includes each channel of each image once.
    """
    names = list(whole)
    parts = {name: [single for single in names if single.startswith(f"{name}/")] or [name] for name in names}
    rows = [[(one.get(name, 0.0), float(name in one)) for name in names] for one in each]
    counts = np.array(rows, np.float64).reshape(len(each), -1)

    def value(name: str) -> Callable[[Numbers], Numbers]:
        places = [2 * names.index(part) for part in parts[name]]
        return lambda sums: _ratio(sums[:, places].sum(axis=1), sums[:, [at + 1 for at in places]].sum(axis=1))

    return counts, {name: value(name) for name in names}


def _ratio(part: Numbers, whole: Numbers) -> Numbers:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)


# Keyed by a score that identifies the task, in this order: segmentation and classes of pixels both have ``iou``.
_COUNTS: dict[str, Callable[[Answers, Answers, Mapping[str, float]], Counted]] = {
    "f1_50": _objects,
    "balanced_accuracy": _classes,
    "iou": _class_areas,
    "division_f1": _divisions,
}
