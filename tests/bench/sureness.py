"""How sure a figure of a benchmark is: 95 % intervals of shares, of quantiles, and of ratios of quantiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, binom

CONFIDENCE = 0.95
FEWEST_BEYOND = 10  # values above a quantile, below which it is not reported: 1,000 for p99, 200 for p95, 100 for p90
QUANTILES = (0.99, 0.95, 0.9)

Values = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def share_interval(count: int, of: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a share, 0 to 1 (Clopper & Pearson, Biometrika 26, 404 (1934)).

    Parameters
    ----------
    count, of
        How many of how many, at least one.
    """
    if not 0 <= count <= of or of < 1:
        raise ValueError(f"expected a count out of at least one, got {count} of {of}")
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if count == 0 else float(beta.ppf(tail, count, of - count + 1))
    high = 1.0 if count == of else float(beta.ppf(1 - tail, count + 1, of - count))
    return low, high


def show_share(count: int, of: int) -> str:
    """Return a share for people: ``1 of 20 (0.1 to 24.9 %)``; a dash where there was none to count."""
    if of == 0:
        return "–"
    low, high = share_interval(count, of)
    return f"{count:,} of {of:,} ({show_percent(low)} to {show_percent(high)} %)"


def show_percent(share: float) -> str:
    """Return a share in percent with as many digits as tell something: ``0``, ``0.04``, ``2.5``, ``25``."""
    percent = 100 * share
    if percent in (0.0, 100.0):
        return f"{percent:.0f}"
    return f"{percent:.2g}" if percent < 1 else f"{percent:.1f}" if percent < 99.95 else "100"


def quantile(values: Values, share: float) -> Estimate | None:
    """Return a quantile with its interval, or None where fewer than ten values lie above it.

    The interval is one of order statistics, whatever the distribution: the number of values below the true quantile is
    binomial (David & Nagaraja, Order Statistics, 3rd ed., 2003, section 7.1). Answers that wait for each other, as
    those of one busy server do, are no independent values: then it is too narrow.
    """
    count = len(values)
    if count * (1 - share) < FEWEST_BEYOND - 1e-9:
        return None
    ordered, tail = np.sort(np.asarray(values)), (1 - CONFIDENCE) / 2
    low, high = int(binom.ppf(tail, count, share)), int(binom.ppf(1 - tail, count, share)) + 1  # ranks from 1
    return Estimate(float(np.quantile(ordered, share)), float(ordered[low - 1]), float(ordered[min(high, count) - 1]))


def highest_quantile(*samples: Values) -> float | None:
    """Return the highest of p99, p95 and p90 that all samples are large enough for; None where there is none."""
    fewest = min(map(len, samples))
    return next((share for share in QUANTILES if fewest * (1 - share) >= FEWEST_BEYOND - 1e-9), None)


def quantile_ratio(above: Values, below: Values, share: float, *, draws: int = 2000) -> Estimate:
    """Return how many times larger a quantile of one sample is, with its percentile bootstrap interval."""
    random, samples = np.random.default_rng(0), (np.asarray(above), np.asarray(below))
    drawn = []
    for sample in samples:
        places = random.integers(len(sample), size=(draws, len(sample)))
        drawn.append(np.quantile(sample[places], share, axis=1))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn[0] / drawn[1], (tail, 1 - tail))
    value = np.quantile(samples[0], share) / np.quantile(samples[1], share)
    return Estimate(float(value), float(low), float(high))
