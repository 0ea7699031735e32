"""Is one model better than another, or only luckier? The paired bootstrap over images.

Images are drawn with replacement, the same ones for both models, and the score of all drawn together is taken anew
(Efron & Tibshirani, An Introduction to the Bootstrap, 1993; paired: Koehn, Statistical Significance Tests for Machine
Translation Evaluation, EMNLP 2004). Images of one group are drawn together, since they are no independent evidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cytoray_services.promotion.counts import pooled_score
from cytoray_services.registry.versions import DIGEST

# Of ten equal candidates two or more pass by luck with a probability of 0.4 %; at 2.5 % it would be 2.5 %.
LEVEL = 0.01
RESAMPLES = 20_000
RESAMPLES_OF_SLOW_SCORES = 2_000
_RESAMPLES_AT_ONCE = 1_000

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Comparison:
    """A candidate beside the champion.

    Attributes
    ----------
    metric
        What they are compared by.
    candidate, champion
        Their scores over all images.
    differences
        (resamples,) candidate minus champion.
    images, groups
        How many images, and how many groups that stand for themselves.
    probability
        One-sided: how often a resample does not favour the candidate.
    level
        What `probability` must not exceed: :data:`LEVEL`, corrected for few groups.
    """

    metric: str
    candidate: float
    champion: float
    differences: Numbers
    images: int
    groups: int
    probability: float
    level: float

    @property
    def better(self) -> bool:
        """Whether the candidate is better by more than chance."""
        return self.candidate > self.champion and self.probability <= self.level


def compare(
    metric: str,
    candidate: tuple[Sequence[object], Sequence[object]],
    champion: tuple[Sequence[object], Sequence[object]],
    groups: Sequence[object],
    score: Callable[[Sequence[object], Sequence[object]], dict[str, float]],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare two models on the same images.

    Parameters
    ----------
    metric
        A score of the task; more is better.
    candidate, champion
        Answers and truths, image by image.
    groups
        For each image what it belongs to.
    score
        The task's own.
    seed
        Of the draw: the same question gets the same answer, so that asking again is no second chance.
    """
    names, members = np.unique(np.array([str(group) for group in groups]), return_inverse=True)
    level = corrected_level(len(names))
    scores = [pooled_score(metric, *answered, score) for answered in (candidate, champion)]
    if not all(counted for _, counted in scores) or level * resamples < 1:  # slow, or beyond reach anyway
        resamples = min(resamples, RESAMPLES_OF_SLOW_SCORES)
    random, parts = np.random.default_rng(seed), []
    for start in range(0, resamples, _RESAMPLES_AT_ONCE):
        size = min(_RESAMPLES_AT_ONCE, resamples - start)
        draws = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=size)
        parts.append([pooled(draws[:, members]) for pooled, _ in scores])
    values = np.concatenate(parts, axis=1)
    wholes = [float(pooled(np.ones((1, len(members)), np.int64))[0]) for pooled, _ in scores]
    differences = values[0] - values[1]
    probability = (1 + int(np.count_nonzero(differences <= 0))) / (1 + resamples)
    return Comparison(metric, wholes[0], wholes[1], differences, len(members), len(names), probability, level)


def corrected_level(groups: int) -> float:
    """Return the share of a bootstrap distribution that stands for :data:`LEVEL` when there are few groups.

    Resamples of few vary too little. The quantile of Student's t, widened by √(n / (n − 1)), makes up for that
    (Hesterberg, What Teachers Should Know About the Bootstrap, Am Stat 69, 371 (2015), section 5.3, "expanded
    percentile interval"). With five groups or fewer it is beyond what :data:`RESAMPLES` can show: nothing passes.
    """
    from scipy.stats import norm, t

    if groups < 2:
        return 0.0
    return float(norm.cdf(t.ppf(LEVEL, groups - 1) * math.sqrt(groups / (groups - 1))))


def seed_of(*digests: str) -> int:
    """Return a number that follows from what is compared."""
    return int("".join(digest[:8] for digest in digests if DIGEST.fullmatch(digest)) or "0", 16)
