"""Intervals of scores, from the variation of their units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.plural import counted
from cytoray_services.statistics import FEW
from cytoray_services.statistics.counts import Answers, Score, UnitScores, unit_scores
from cytoray_services.statistics.resampling import corrected_level, resampled_scores

CONFIDENCE = 0.95
_RESAMPLES, _RESAMPLES_OF_MANY = 4000, 1000
_MANY = 500


@dataclass(frozen=True)
class Interval:
    """The 95 % interval of a score.

    Attributes
    ----------
    low, high
        Its ends.
    units
        Number of images, movies or groups with anything to count of the score.
    """

    low: float
    high: float
    units: int

    @property
    def few(self) -> bool:
        """Whether it is based on too few units."""
        return self.units < FEW


def score_intervals(
    answers: Answers, truths: Answers, units: Sequence[object], score: Score, *, seed: int = 0
) -> dict[str, Interval]:
    """Return the 95 % interval of every score of a task: the expanded percentile bootstrap over units.

    Parameters
    ----------
    answers, truths
        Image by image.
    units
        The unit of each image: itself, or a group such as a patient. Cells of one image are never drawn separately,
        because they are similar.
    score
        The score function of the task.
    seed
        Random seed; the same input has the same result.

    Returns
    -------
    dict
        By score; scores with fewer than two units are absent.
    """
    return intervals_of(unit_scores(answers, truths, units, score), seed=seed)


def intervals_of(scores: UnitScores, *, seed: int = 0) -> dict[str, Interval]:
    """Return the interval of every score; see :func:`score_intervals`."""
    if scores.units < 2:
        return {}
    resamples = _RESAMPLES if scores.units <= _MANY else _RESAMPLES_OF_MANY
    drawn = resampled_scores([scores], list(scores.of), seed=seed, resamples=resamples)[0]
    found = {name: ends(values, scores.carrying(name)) for name, values in drawn.items()}
    return {name: interval for name, interval in found.items() if interval is not None}


def ends(drawn: NDArray[np.float64], units: int) -> Interval | None:
    """Return the interval of a bootstrap distribution, widened for few units; None for fewer than two, or no value."""
    known = drawn[np.isfinite(drawn)]
    if units < 2 or not known.size:
        return None
    share = corrected_level(units, (1 - CONFIDENCE) / 2)
    low, high = np.quantile(known, (share, 1 - share))
    return Interval(float(low), float(high), units)


def described(interval: Interval) -> dict[str, Any]:
    """Return an interval as a JSON object."""
    return {"low": interval.low, "high": interval.high, "units": interval.units}


def shown(value: float, interval: Interval | None, *, alone: bool = False) -> str:
    """Return a score with its interval for display: ``0.812 (0.770 to 0.846)``.

    With `alone` it has no interval because there is a single unit.
    """
    if interval is None or not math.isfinite(value):
        return f"{value:.3f}{' (?)' if alone else ''}"
    return f"{value:.3f} ({interval.low:.3f} to {interval.high:.3f}{'?' if interval.few else ''})"


def few_units(units: int, unit: str) -> str | None:
    """Return a warning about too few units; None if there are enough."""
    if units >= FEW:
        return None
    return (
        f"the scores are based on {counted(units, unit)}; with fewer than {FEW}, their variation is unknown and the "
        "intervals are too narrow: label more"
    )
