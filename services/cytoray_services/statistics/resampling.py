"""Bootstrap and randomisation test over units: images, movies, or groups.

Units are drawn with replacement (Efron & Tibshirani, An Introduction to the Bootstrap, 1993), or exchanged between two
models as a whole, because the images of a unit are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

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
    """Return the distribution of every score, for models with the same units."""
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


def exchanged(
    first: UnitScores, second: UnitScores, metric: str, *, seed: int, resamples: int
) -> tuple[Numbers, Numbers]:
    """Exchange the answers of two models unit by unit, and return both scores each time.

    For two equal models every exchange is as likely as the observed answers, for any score and any number of units
    (Noreen, Computer-Intensive Methods for Testing Hypotheses, 1989; for pooled scores: Yeh, More Accurate Tests for
    the Statistical Significance of Result Differences, COLING 2000).

    Returns
    -------
    tuple
        Scores of the first and of the second. With few units, all exchanges; otherwise 1 + `resamples`, at random. The
        first one is without an exchange: a valid test must include the observed answers (Phipson &
        Smyth, Stat. Appl. Genet. Mol. Biol. 9, 39 (2010)).
    """
    if (metric in first.counted) != (metric in second.counted):
        raise ValueError(f"expected {metric} from counts of both models or of none, got one")
    one, other = first.of[metric], second.of[metric]
    columns = max(one.counts.shape[1], other.counts.shape[1])  # a class that only one model predicts comes last
    counts = [np.pad(each.counts, ((0, 0), (0, columns - each.counts.shape[1]))) for each in (one, other)]
    value = one.value if one.counts.shape[1] == columns else other.value
    difference, both = counts[0] - counts[1], (counts[0] + counts[1]).sum(axis=0)
    found = []
    for kept in _exchanges(first.units, 1 + resamples, np.random.default_rng(seed)):
        sums = kept.astype(np.float64) @ difference + counts[1].sum(axis=0)
        found.append((value(sums), value(both - sums)))
    scores = np.concatenate(found, axis=1)
    return scores[0], scores[1]


def _exchanges(units: int, number: int, random: np.random.Generator) -> Iterator[NDArray[np.int8]]:
    """Yield (n, units), the units that are not exchanged: all in the first row."""
    if 2**units <= number:
        yield (~np.arange(2**units)[:, None] >> np.arange(units) & 1).astype(np.int8)
        return
    at_once = max(1, _DRAWN_AT_ONCE // units)
    for start in range(0, number, at_once):
        kept = random.integers(0, 2, (min(at_once, number - start), units), np.int8)
        if start == 0:
            kept[0] = 1
        yield kept


def corrected_level(units: int, level: float) -> float:
    """Return the share of a bootstrap distribution that corresponds to `level` for few units.

    Resamples of few units vary too little. The quantile of Student's t, widened by √(n / (n − 1)), corrects that
    (Hesterberg, What Teachers Should Know About the Bootstrap, Am Stat 69, 371 (2015), section 5.3, "expanded
    percentile interval").
    """
    from scipy.stats import norm, t

    if units < 2:
        return 0.0
    return float(norm.cdf(t.ppf(level, units - 1) * math.sqrt(units / (units - 1))))
