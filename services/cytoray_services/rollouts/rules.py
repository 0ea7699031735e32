"""What speaks against a canary: one small function per fault, each a test against the largest effect that is allowed.

In every step both versions answer requests of the same stream at the same time, so any difference between them is the
canary's. Each rule returns what is wrong in words, or None. Its null hypothesis is that the canary is off by the limit
at most: the other version is granted the limit before the two are compared, so that a canary within it is withdrawn
with a probability below `level`. (Such hypotheses are tested for non-inferiority, with the roles exchanged: Wellek,
Testing Statistical Hypotheses of Equivalence and Noninferiority, 2nd ed., Chapman & Hall 2010.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cytoray_services.rollouts.rollout import Limits

FEWEST = 20  # below, quantiles mean nothing
MANY = 5 * FEWEST
FEWEST_BESIDE = 10  # of the other version: by chance its share, as large as the canary's, has fewer at times

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sample:
    """What is known of the requests that a version answered.

    Attributes
    ----------
    counts
        Step by step, how many it answered and how many of them failed by the service's fault.
    pace, sizes, batches
        Of some passes of the network in this step, in lanes of one size: seconds per megapixel of an image, its
        megapixels, and how many images went through the network together.
    summaries
        By name, numbers that describe some of the answers in this step; NaN where an answer has none.
    """

    counts: tuple[tuple[int, int], ...]
    pace: Numbers
    sizes: Numbers
    batches: NDArray[np.int64]
    summaries: dict[str, Numbers]


Rule = Callable[[Sample, Sample, Limits, float], str | None]


@dataclass(frozen=True, eq=False)
class Stratum:
    """Seconds per megapixel of both versions, and the megapixels of the images, of batches of like size."""

    own: Numbers
    own_sizes: Numbers
    others: Numbers
    others_sizes: Numbers

    def allowing(self, times: float) -> Stratum:
        """Return this with the other version's times made longer."""
        return replace(self, others=times * self.others)

    def alike(self) -> tuple[Numbers, Numbers]:
        """Return the logarithms of the times, without what goes with the size of the image.

        That is a straight line through the times of both versions, which knows nothing of versions: what is compared
        by chance stays so (Quade, Rank Analysis of Covariance, J Am Stat Assoc 62, 1187 (1967)).
        """
        times, sizes = (
            np.log(np.concatenate((self.own, self.others))),
            np.concatenate((self.own_sizes, self.others_sizes)),
        )
        away = np.log(sizes) - np.log(sizes).mean()
        spread = float(away @ away)
        rest = times - away * float(away @ times) / spread if spread > 0 else times
        return rest[: len(self.own)], rest[len(self.own) :]


def more_failures(canary: Sample, other: Sample, limits: Limits, level: float) -> str | None:
    """Tell whether more of the canary's requests fail than may.

    Fisher's exact test, one-sided, with the steps as strata: given how many failed in each step, the canary's are a
    sum of hypergeometric numbers (Gart, The Comparison of Proportions, Rev Int Stat Inst 39, 148 (1971)). As many more
    of the other version's are taken to have failed as the limit allows, rounded up: a number that does not vary, so
    the test errs on the safe side. Where the other version answered nothing there is nothing to compare with: a step
    such as that does not count.
    """
    steps = [step for step in zip(canary.counts, other.counts, strict=True) if step[0][0] and step[1][0]]
    if not steps:
        return None
    requests, failed = (sum(numbers) for numbers in zip(*(own for own, _ in steps), strict=True))
    rate = failed / requests
    usual = sum(own * others_failed / others for (own, _), (others, others_failed) in steps) / requests
    allowed = [(own, (n, min(n, failures + math.ceil(limits.failures * n)))) for own, (n, failures) in steps]
    if _fisher(allowed) >= level:
        return None
    return f"errors: {rate:.1%} of {requests} requests failed, beside {usual:.1%}"


def _fisher(strata: Sequence[tuple[tuple[int, int], tuple[int, int]]]) -> float:
    """Return how probable it is that as many of the canary's as are marked, or more, are so by chance.

    Parameters
    ----------
    strata
        In each, how many the canary has and how many of them are marked; and the same of the other version.
    """
    from scipy.signal import convolve
    from scipy.stats import hypergeom

    chances = np.ones(1)
    for (own, own_marked), (others, others_marked) in strata:
        marked = own_marked + others_marked
        here = hypergeom.pmf(np.arange(min(marked, own) + 1), own + others, marked, own)
        chances = convolve(chances, here)  # by Fourier transforms where a busy service has many
    return float(chances[sum(marked for (_, marked), _ in strata) :].sum())


def slower(canary: Sample, other: Sample, limits: Limits, level: float) -> str | None:
    """Tell whether the canary takes longer as a rule: the stratified test of Mann and Whitney, one-sided.

    Batches of like size are the strata (van Elteren, Bull Inst Int Stat 37, 351 (1960)).
    """
    strata = _alike(canary, other)
    if not strata or _rank_test([one.allowing(limits.slower) for one in strata]) >= level:
        return None
    return f"latency: {_beside(strata, 0.5)} (median)"


def slow_too_often(canary: Sample, other: Sample, limits: Limits, level: float) -> str | None:
    """Tell whether the canary takes far longer now and then.

    The quantile test (Westenberg 1948; Mood, Introduction to the Theory of Statistics, 1950, § 16.5): how many of the
    slowest 5 % of both versions together are the canary's, one-sided and exact, with batches of like size as strata.
    """
    strata = _alike(canary, other)
    if not strata or _quantile_test([one.allowing(limits.slowest) for one in strata]) >= level:
        return None
    return f"latency: {_beside(strata, 0.95)} (95 % quantile)"


def _alike(canary: Sample, other: Sample) -> list[Stratum]:
    """Return the times of both versions in batches of like size: of 1, of 2, of 3 or 4, of 5 to 8 images and so on.

    Nothing where no size has enough of both; of a canary that has answered a good many times, everything in one. That
    its batches are so unlike is its own doing then: its lane and the other version's are sent the same requests.
    """
    own, others = (np.ceil(np.log2(one.batches)).astype(np.int64) for one in (canary, other))
    strata = [_stratum(canary, own == size, other, others == size) for size in np.unique(own)]
    enough = [one for one in strata if len(one.own) >= FEWEST and len(one.others) >= FEWEST_BESIDE]
    if not enough and len(own) >= MANY and len(others) >= FEWEST_BESIDE:
        return [_stratum(canary, own >= 0, other, others >= 0)]
    return enough


def _stratum(canary: Sample, own: NDArray[np.bool_], other: Sample, others: NDArray[np.bool_]) -> Stratum:
    return Stratum(canary.pace[own], canary.sizes[own], other.pace[others], other.sizes[others])


def _rank_test(strata: Sequence[Stratum]) -> float:
    """Return how probable it is that the canary's times are as long as they are, or longer, by chance."""
    from scipy.stats import norm, rankdata

    excess = variance = 0.0
    for own, others in (one.alike() for one in strata):
        n, both = len(own), len(own) + len(others)
        ranks = rankdata(np.concatenate((own, others)))
        weight = 1 / (both + 1)
        excess += weight * (ranks[:n].sum() - n * (both + 1) / 2)
        variance += weight**2 * n * len(others) / both * ranks.var(ddof=1)
    return float(norm.sf(excess / variance**0.5)) if variance else 1.0


def _quantile_test(strata: Sequence[Stratum]) -> float:
    """Return how probable it is that so many of the slowest 5 % are the canary's, or more, by chance."""
    counts = []
    for own, others in (one.alike() for one in strata):
        slow = np.quantile(np.concatenate((own, others)), 0.95)
        counts.append(((len(own), int((own > slow).sum())), (len(others), int((others > slow).sum()))))
    return _fisher(counts)


def _beside(strata: Sequence[Stratum], quantile: float) -> str:
    """Say how long both versions take in batches as the canary has them."""
    weights = [len(one.own) for one in strata]
    took = np.average([np.quantile(one.own, quantile) for one in strata], weights=weights)
    usual = np.average([np.quantile(one.others, quantile) for one in strata], weights=weights)
    return f"{took:.3g} seconds per megapixel, beside {usual:.3g} in like batches"


def drift(canary: Sample, other: Sample, limits: Limits, level: float) -> str | None:
    """Tell whether the canary answers otherwise.

    Kolmogorov and Smirnov's test of two samples for each number that describes an answer (Smirnov, Bull Math Univ
    Moscou 2, 3 (1939)), with Bonferroni's correction for their count. The statistic is a distance: by the triangle
    inequality chance alone makes what it has beyond the true one, so the limit is taken off before it is looked up.
    """
    from scipy.stats import ks_2samp, kstwo

    pairs = {
        name: (_known(canary.summaries[name]), _known(other.summaries[name]))
        for name in sorted(canary.summaries.keys() & other.summaries.keys())
    }
    pairs = {name: pair for name, pair in pairs.items() if min(map(len, pair)) >= FEWEST}
    for name, (own, others) in pairs.items():
        distance = ks_2samp(own, others, method="asymp").statistic
        sample = round(len(own) * len(others) / (len(own) + len(others)))
        if kstwo.sf(distance - limits.drift, sample) < level / len(pairs):
            return (
                f"drift: {name.replace('_', ' ')} is {np.median(own):.3g} (median), beside {np.median(others):.3g}; "
                f"distance {distance:.2f}"
            )
    return None


def _known(values: Numbers) -> Numbers:
    return values[np.isfinite(values)]


RULES: tuple[Rule, ...] = (more_failures, slower, slow_too_often, drift)
