"""How sure a score is: over units (images, movies, groups), never over cells, since cells of one image are alike."""

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

    The one that was recorded; else the expanded percentile bootstrap over units
    (:mod:`cytoray_services.statistics.intervals`) of what is known of cells, or of images, each weighing as many
    objects as it holds.
    """
    found = ending.intervals.get(ending.metric) or _interval(ending)
    return None if found is None else (found.low, found.high)


def of_split(images: Sequence[ImageScore], split: str) -> list[ImageScore]:
    """Return the images of one split."""
    return [image for image in images if image.split == split]


def unit_count(ending: Ending, split: str = "val") -> int:
    """Return how many units a split's scores rest on."""
    if split == "val" and ending.metric in ending.intervals:
        return ending.intervals[ending.metric].units
    return len(set(owners(ending, split) if ending.cells.get(split, Cells()).truth else image_units(ending, split)))


def image_units(ending: Ending, split: str) -> list[str]:
    """Return for each image of a split the unit that it belongs to."""
    return [image.unit or image.file for image in of_split(ending.images, split)]


def owners(ending: Ending, split: str) -> list[str]:
    """Return for each cell of a split the unit that it belongs to.

    Endings of earlier releases did not record it: there the images own the cells in order, if they hold as many in
    all; else each cell is a unit by itself.
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
    """Return the mean score of each unit of a split, and how many cells or images it holds.

    The score is the share of cells that are right where there are classes, else that of images.
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
    """Score the cells as their task does: scores need only the predicted class and how probable it is."""
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
