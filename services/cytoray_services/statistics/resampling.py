"""The bootstrap over units: images, movies, or what belongs together (Efron & Tibshirani, 1993).

Units are drawn with replacement, all that belongs to one together, since it is no independent evidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cytoray_services.statistics.counts import UnitScores

Numbers = NDArray[np.float64]
_DRAWN_AT_ONCE = 2_000_000  # weights in memory


def resampled(scores: Sequence[UnitScores], metric: str, *, seed: int, resamples: int) -> list[Numbers]:
    """Draw units with replacement, the same ones for all, and return the score of each draw, (resamples,) each."""
    return [one[metric] for one in resampled_scores(scores, [metric], seed=seed, resamples=resamples)]


def resampled_scores(
    scores: Sequence[UnitScores], metrics: Sequence[str], *, seed: int, resamples: int
) -> list[Mapping[str, Numbers]]:
    """Return for each of the models that answered the same units the distribution of every score."""
    units, random = scores[0].units, np.random.default_rng(seed)
    found: list[dict[str, list[Numbers]]] = [{name: [] for name in metrics} for _ in scores]
    at_once = max(1, _DRAWN_AT_ONCE // max(units, 1))
    for start in range(0, resamples, at_once):
        draws = random.multinomial(units, np.full(units, 1 / units), size=min(at_once, resamples - start))
        weights = draws.astype(np.float64)
        for one, parts in zip(scores, found, strict=True):
            for name in metrics:
                parts[name].append(one.of[name](weights))
    return [{name: np.concatenate(values) for name, values in parts.items()} for parts in found]


def corrected_level(units: int, level: float) -> float:
    """Return the share of a bootstrap distribution that stands for `level` when there are few units.

    Resamples of few vary too little. The quantile of Student's t, widened by √(n / (n − 1)), makes up for that
    (Hesterberg, What Teachers Should Know About the Bootstrap, Am Stat 69, 371 (2015), section 5.3, "expanded
    percentile interval").
    """
    from scipy.stats import norm, t

    if units < 2:
        return 0.0
    return float(norm.cdf(t.ppf(level, units - 1) * math.sqrt(units / (units - 1))))
