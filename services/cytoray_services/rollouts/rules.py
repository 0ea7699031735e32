"""What speaks against a canary: one small function per fault, each a test with the least effect that matters.

Within a step both versions answer requests of the same stream, so any difference between them is the canary's. Each
rule returns what is wrong in words, or None. To be withdrawn takes both: a difference larger than the limit, and one
that chance brings about with a probability below `level`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cytoray_services.rollouts.rollout import Limits

FEWEST = 20  # below, quantiles mean nothing

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sample:
    """What is known of the requests that a version answered.

    Attributes
    ----------
    counts
        Step by step, how many it answered and how many of them failed by the service's fault.
    pace
        Seconds per megapixel of some of those in this step that did not fail.
    summaries
        By name, the numbers that describe the answers of the same ones; NaN where an answer has none.
    """

    counts: tuple[tuple[int, int], ...]
    pace: Numbers
    summaries: dict[str, Numbers]


Rule = Callable[[Sample, Sample, Limits, float], str | None]


def more_failures(canary: Sample, other: Sample, limits: Limits, level: float) -> str | None:
    """Tell whether more of the canary's requests fail.

    Fisher's exact test, one-sided, with the steps as strata: given how many failed in each step, the canary's are a
    sum of hypergeometric numbers (Gart, The Comparison of Proportions, Rev Int Stat Inst 39, 148 (1971)). Where the
    other version answers nothing, the binomial test against the limit itself.
    """
    from scipy.stats import binom

    requests, failed = (sum(numbers) for numbers in zip(*canary.counts, strict=True))
    if not requests:
        return None
    steps = list(zip(canary.counts, other.counts, strict=True))
    rate = failed / requests
    usual = sum(own * others_failed / others for (own, _), (others, others_failed) in steps if others) / requests
    if rate - usual <= limits.failures:
        return None
    beside = [step for step in steps if step[1][0]]
    probability = _fisher(beside) if beside else binom.sf(failed - 1, requests, limits.failures)
    if probability >= level:
        return None
    return f"errors: {rate:.1%} of {requests} requests failed, beside {usual:.1%}"


def _fisher(steps: Sequence[tuple[tuple[int, int], tuple[int, int]]]) -> float:
    """Return how probable it is that so many of the canary's requests, or more, fail by chance."""
    from scipy.stats import hypergeom

    chances = np.ones(1)
    for (own, own_failed), (others, others_failed) in steps:
        all_failed = own_failed + others_failed
        chances = np.convolve(chances, hypergeom.pmf(np.arange(all_failed + 1), own + others, all_failed, own))
    return float(chances[sum(failed for (_, failed), _ in steps) :].sum())


def slower(canary: Sample, other: Sample, limits: Limits, level: float) -> str | None:
    """Tell whether the canary takes longer as a rule.

    Mann and Whitney's test, one-sided (Mann & Whitney, Ann Math Stat 18, 50 (1947)), against the other version's times
    made longer by as much as is allowed: a difference that does not matter is none, however sure it is.
    """
    from scipy.stats import mannwhitneyu

    if min(len(canary.pace), len(other.pace)) < FEWEST:
        return None
    allowed = limits.slower * other.pace
    if mannwhitneyu(canary.pace, allowed, alternative="greater", method="asymptotic").pvalue >= level:
        return None
    took, usual = np.median(canary.pace), np.median(other.pace)
    return f"latency: {took:.3g} seconds per megapixel (median), beside {usual:.3g}"


def slow_too_often(canary: Sample, other: Sample, limits: Limits, level: float) -> str | None:
    """Tell whether the canary takes far longer now and then.

    The quantile test (Westenberg 1948; Mood, Introduction to the Theory of Statistics, 1950, § 16.5): how many of the
    slowest 5 % of both versions together are the canary's, one-sided and exact; again, with the other version's times
    made longer by as much as is allowed.
    """
    from scipy.stats import hypergeom

    if min(len(canary.pace), len(other.pace)) < FEWEST:
        return None
    both = np.concatenate((canary.pace, limits.slowest * other.pace))
    slow = np.quantile(both, 0.95)
    own, all_slow = int((canary.pace > slow).sum()), int((both > slow).sum())
    if hypergeom.sf(own - 1, len(both), all_slow, len(canary.pace)) >= level:
        return None
    took, usual = np.quantile(canary.pace, 0.95), np.quantile(other.pace, 0.95)
    return f"latency: {took:.3g} seconds per megapixel (95 % quantile), beside {usual:.3g}"


def drift(canary: Sample, other: Sample, limits: Limits, level: float) -> str | None:
    """Tell whether the canary answers otherwise.

    Kolmogorov and Smirnov's test of two samples for each number that describes an answer (Smirnov, Bull Math Univ
    Moscou 2, 3 (1939)), its statistic being the effect too, with Bonferroni's correction for their count.
    """
    from scipy.stats import ks_2samp

    pairs = {
        name: (_known(canary.summaries[name]), _known(other.summaries[name]))
        for name in sorted(canary.summaries.keys() & other.summaries.keys())
    }
    pairs = {name: pair for name, pair in pairs.items() if min(map(len, pair)) >= FEWEST}
    for name, (own, others) in pairs.items():
        found = ks_2samp(own, others, method="asymp")
        if found.statistic > limits.drift and found.pvalue < level / len(pairs):
            return (
                f"drift: {name.replace('_', ' ')} is {np.median(own):.3g} (median), beside {np.median(others):.3g}; "
                f"distance {found.statistic:.2f}"
            )
    return None


def _known(values: Numbers) -> Numbers:
    return values[np.isfinite(values)]


RULES: tuple[Rule, ...] = (more_failures, slower, slow_too_often, drift)
RULES_ALONE: tuple[Rule, ...] = (more_failures, slower, slow_too_often)
