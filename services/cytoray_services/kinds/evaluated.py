"""The result of an evaluation: the scores of each image and of all images, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from cytoray_analysis.answer_warnings import WarningSummary, summarise_warnings
from cytoray_analysis.predictor import Prediction
from cytoray_analysis.tasks.calibration import CalibratedError, expected_calibration_error_when_calibrated
from cytoray_analysis.tasks.metrics import metric_named
from cytoray_services.datasets.dataset import Labelled
from cytoray_services.statistics.counts import Score
from cytoray_services.statistics.intervals import Interval, score_intervals


@dataclass(frozen=True, eq=False)
class ItemScore:
    """One image (or movie), the answer of the model, and its scores.

    Attributes
    ----------
    labelled
        The image with its truth.
    group
        Its value in the column that the evaluation was grouped by; None without grouping.
    prediction
        The model's answer.
    metrics
        The scores of this image; a score without anything to count is absent.
    """

    labelled: Labelled
    group: str | None
    prediction: Prediction
    metrics: dict[str, float]

    @property
    def image(self) -> Path:
        """The file."""
        return self.labelled.items[0].image

    @property
    def unit(self) -> str:
        """The independent unit: its group, or its image."""
        first = self.labelled.items[0]
        return first.group or str(first.image)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of a model on a data set.

    Attributes
    ----------
    metrics
        Scores pooled over all images; a score without anything to count is absent.
    groups
        Scores pooled over the images of each group, by the group's name; empty without grouping.
    items
        Every image, in the order of the data set.
    seconds
        Duration, including reading.
    downstream
        Scores of a segmentation model on predicted and on real stains, if one was given.
    metric
        Name of the task's first score.
    absent
        Names of the scores without anything to count.
    score
        The score of the task; None without items.
    unit
        The independent unit, for display: ``image``, ``movie``, or ``group of COLUMN``.
    """

    metrics: dict[str, float]
    groups: dict[str, dict[str, float]]
    items: tuple[ItemScore, ...]
    seconds: float
    downstream: dict[str, float]
    metric: str
    absent: tuple[str, ...] = ()
    score: Score | None = None
    unit: str = "image"

    @property
    def units(self) -> list[str]:
        """The unit of each item: its group, or its image."""
        return [item.unit for item in self.items]

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """The 95 % interval of every score; empty with fewer than two units."""
        return self._intervals(self.items)

    @cached_property
    def group_intervals(self) -> dict[str, dict[str, Interval]]:
        """The intervals of the scores of each group."""
        return {name: self._intervals([item for item in self.items if item.group == name]) for name in self.groups}

    def calibrated_error(self, items: Sequence[ItemScore] | None = None) -> CalibratedError | None:
        """Return the ``ece`` that calibrated answers would have, for some or all items; None without one."""
        chosen = [one for one in (self.items if items is None else items) if "ece" in one.metrics]
        if not chosen:
            return None
        known = [one.prediction.scored.max(axis=1)[np.asarray(one.labelled.truth) >= 0] for one in chosen]
        return expected_calibration_error_when_calibrated(np.concatenate(known))

    def _intervals(self, items: Sequence[ItemScore]) -> dict[str, Interval]:
        if self.score is None:
            return {}
        answers, truths = [one.prediction.scored for one in items], [one.labelled.truth for one in items]
        return score_intervals(answers, truths, [one.unit for one in items], self.score)

    @property
    def warnings(self) -> tuple[WarningSummary, ...]:
        """The warnings about all images, grouped by code."""
        return summarise_warnings(item.prediction.warnings for item in self.items)


def extremes(evaluation: Evaluation, count: int) -> tuple[list[ItemScore], list[ItemScore]]:
    """Return the worst and the best images by the task's first score, worst first and best first.

    Images with equal scores are ordered by their number of objects, because empty images are easy. No image is in
    both lists; images without that score are used only if there are too few others.
    """
    metric = evaluation.metric
    goodness = metric_named(metric).goodness

    def order(score: ItemScore, sign: float) -> tuple[bool, float, int]:
        value = score.metrics.get(metric)
        return value is None, 0.0 if value is None else sign * goodness(value), -score.prediction.objects

    worst = sorted(evaluation.items, key=lambda score: order(score, 1.0))[:count]
    others = [score for score in evaluation.items if score not in worst]
    best = sorted(others, key=lambda score: order(score, -1.0))[:count]
    return worst, best
