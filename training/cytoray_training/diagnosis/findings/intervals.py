"""Intervals of scores: over units (images, movies, groups), not cells, because cells of one image are similar."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.tasks.class_scores import score_classes
from cytoray_analysis.tasks.classification import pooled
from cytoray_services.statistics.counts import UnitScores, members_of, ratio_of, unit_scores
from cytoray_services.statistics.intervals import Interval, intervals_of
from cytoray_training.diagnosis.facts import Cells, Ending, ImageScore

Numbers = NDArray[np.float64]


def score_interval(ending: Ending) -> tuple[float, float] | None:
    """Return the 95 % interval of the validation score; None with fewer than two units.

    The recorded interval; else the expanded percentile bootstrap over units
    (:mod:`cytoray_services.statistics.intervals`) of the scores of cells, or of images weighted by their number of
    objects.
    """
    found = ending.intervals.get(ending.metric) or _interval(ending)
    return None if found is None else (found.low, found.high)


def of_split(images: Sequence[ImageScore], split: str) -> list[ImageScore]:
    """Return the images of one split."""
    return [image for image in images if image.split == split]


def unit_count(ending: Ending) -> int:
    """Return the number of units behind the validation scores."""
    if ending.metric in ending.intervals:
        return ending.intervals[ending.metric].units
    return len(set(owners(ending, "val") if ending.cells.get("val", Cells()).truth else image_units(ending, "val")))


def image_units(ending: Ending, split: str) -> list[str]:
    """Return the unit of each image of a split."""
    return [image.unit or image.file for image in of_split(ending.images, split)]


def owners(ending: Ending, split: str) -> list[str]:
    """Return the unit of each cell of a split.

    Earlier releases did not record it: then the cells belong to the images in order if the totals agree; else each cell
    is its own unit.
    """
    cells = ending.cells.get(split, Cells())
    if cells.owner:
        return list(cells.owner)
    images = of_split(ending.images, split)
    if sum(image.objects for image in images) == len(cells.truth):
        return [
            unit for unit, image in zip(image_units(ending, split), images, strict=True) for _ in range(image.objects)
        ]
    return [str(number) for number in range(len(cells.truth))]


def unit_means(ending: Ending, split: str) -> tuple[Numbers, Numbers]:
    """Return the mean score of each unit of a split, and its number of cells or images.

    The score is the share of correct cells if there are classes, else the score of images.
    """
    cells = ending.cells.get(split, Cells())
    if cells.truth:
        values = (np.array(cells.truth) == np.array(cells.predicted)).astype(np.float64)
        members = members_of(owners(ending, split))
    else:
        values = np.array([image.score for image in of_split(ending.images, split)], dtype=np.float64)
        members = members_of(image_units(ending, split))
    counts = np.bincount(members).astype(np.float64)
    return np.bincount(members, weights=values) / counts, counts


def _interval(ending: Ending) -> Interval | None:
    if unit_count(ending) < 2:
        return None
    scores = _of_cells(ending) if ending.cells.get("val", Cells()).truth else _of_images(ending)
    return intervals_of(scores).get(ending.metric)


def _of_images(ending: Ending) -> UnitScores:
    images, members = of_split(ending.images, "val"), members_of(image_units(ending, "val"))
    objects = np.array([max(image.objects, 1) for image in images], dtype=np.float64)
    scored = objects * np.array([image.score for image in images])
    held, sums = (np.bincount(members, weights=each).astype(np.float64) for each in (objects, scored))
    whole = {ending.metric: float(sums.sum() / held.sum())}
    return UnitScores(whole, len(held), frozenset(whole), {ending.metric: ratio_of(sums, held)})


def _of_cells(ending: Ending) -> UnitScores:
    """Score the cells as their task does: scores need only the predicted class and its probability."""
    cells, members = ending.cells["val"], members_of(owners(ending, "val"))
    truth, number = np.array(cells.truth), len(ending.classes)
    probabilities = np.zeros((len(truth), number))
    probabilities[np.arange(len(truth)), np.array(cells.predicted)] = np.array(cells.probability)
    parts = [members == unit for unit in range(int(members.max()) + 1)]
    return unit_scores(
        [probabilities[part] for part in parts],
        [truth[part] for part in parts],
        [f"{unit:09d}" for unit in range(len(parts))],
        lambda answers, truths: score_classes(*pooled(answers, truths, number), ending.classes),
        [ending.metric],
    )
