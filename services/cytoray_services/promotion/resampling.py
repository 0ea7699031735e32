"""Is one model better than another, or only luckier? The randomisation test, and the paired bootstrap, over images.

Better: the answers of both are exchanged image by image at random, and the scores of all images together are taken
again. It holds its level at every number of images and for every score, where the bootstrap passes equal models too
often (Riezler & Maxwell, On Some Pitfalls in Automatic Evaluation and Significance Testing for MT, ACL Workshop 2005).

Lost more than is tolerated: exchanging cannot ask that. Images are drawn with replacement, the same ones for both
(Efron & Tibshirani, An Introduction to the Bootstrap, 1993; paired: Koehn, Statistical Significance Tests for Machine
Translation Evaluation, EMNLP 2004).

Images of one group are exchanged or drawn together, since they are no independent evidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.tasks.metrics import metric_named
from cytoray_services.registry.versions import DIGEST
from cytoray_services.statistics import FEW
from cytoray_services.statistics.counts import Score, UnitScores, unit_scores
from cytoray_services.statistics.resampling import corrected_level, exchanged, resampled

# Of ten equal candidates two or more pass by luck with a probability of 0.4 %; at 2.5 % it would be 2.5 %.
LEVEL = 0.01
ALL_ATTEMPTS = 0.05  # at most so often any of all candidates on one evaluation set passes by luck
LOSSES = 0.05  # at most so often equal models are refused for a loss in any group or score
RESAMPLES = 20_000
MOST_RESAMPLES = 200_000
_WITHIN = 10  # at least so many exchanges lie within the level, so that their number hardly changes a verdict

Numbers = NDArray[np.float64]
Answered = tuple[Sequence[object], Sequence[object]]


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
        By how much the candidate is better, whichever direction of the metric is: as found, then with answers
        exchanged; NaN where there was nothing to count.
    images, groups
        How many images, and how many of those that stand for themselves have anything to count.
    probability
        One-sided: the share of `differences` that favour the candidate at least as much as what was found.
    level
        What `probability` must not exceed.
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
    def gain(self) -> float:
        """By how much the candidate is better, in the metric's unit."""
        return metric_named(self.metric).gain(self.candidate, self.champion)

    @property
    def better(self) -> bool:
        """Whether the candidate is better by more than chance."""
        return self.gain > 0 and self.probability <= self.level

    @property
    def least_groups(self) -> int:
        """How many groups it takes: n can be exchanged in 2ⁿ ways, and the luckiest is one of them."""
        return math.ceil(-math.log2(self.level))


@dataclass(frozen=True)
class Loss:
    """Whether the candidate loses more than is tolerated, in one group or by one score.

    Attributes
    ----------
    name
        Of the group, or of the score.
    metric
        The score.
    candidate, champion
        Their scores; None where there is nothing to count.
    tolerance
        How much may be lost, in the metric's unit.
    groups
        How many units it rests on: those that have anything to count.
    verdict
        ``worse``: the loss is shown; ``kept``: that there is none is shown; else ``unknown``: so few cannot tell.
    """

    name: str
    metric: str
    candidate: float | None
    champion: float | None
    tolerance: float
    groups: int
    verdict: Literal["worse", "kept", "unknown"]


def level_of(attempt: int) -> float:
    """Return the level of the k-th comparison on one evaluation set.

    The first is tested at :data:`LEVEL`, later ones at less and less, so that all together, however many, exceed
    :data:`ALL_ATTEMPTS` in no case: 0.05 · 4 / ((k + 3)(k + 4)), whose sum over all k is 0.05 (alpha spending: Foster &
    Stine, J. R. Stat. Soc. B 70, 429 (2008)).
    """
    first = ALL_ATTEMPTS / LEVEL - 1
    return ALL_ATTEMPTS * first / ((attempt + first - 1) * (attempt + first))


def compare(
    metric: str,
    candidate: Answered,
    champion: Answered,
    groups: Sequence[object],
    score: Score,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Comparison:
    """Compare two models on the same images.

    Parameters
    ----------
    metric
        A score of the task.
    candidate, champion
        Answers and truths, image by image.
    groups
        For each image what it belongs to.
    score
        The task's own.
    seed
        Of the draw: the same question gets the same answer, so that asking again is no second chance.
    resamples
        How many, at least; more where `level` asks for more.
    level
        How often an equal candidate may pass by luck.
    """
    counted = [unit_scores(*answered, groups, score, [metric]) for answered in (candidate, champion)]
    return compare_units(metric, counted[0], counted[1], len(groups), seed=seed, resamples=resamples, level=level)


def compare_units(
    metric: str,
    candidate: UnitScores,
    champion: UnitScores,
    images: int,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Comparison:
    """Compare two models of which the units were counted; see :func:`compare`."""
    resamples = min(max(resamples, math.ceil(_WITHIN / level)), MOST_RESAMPLES)
    differences = _gains(metric, *exchanged(candidate, champion, metric, seed=seed, resamples=resamples))
    new, old = candidate.whole[metric], champion.whole[metric]
    rounding = 1e-9 * max(1.0, abs(new), abs(old))
    # An exchange in which either has nothing to count speaks against the candidate.
    probability = float(np.mean(~(differences < differences[0] - rounding)))
    units = carrying(metric, candidate, champion)
    return Comparison(metric, new, old, differences, images, units, probability, level)


def find_loss(
    name: str,
    metric: str,
    candidate: UnitScores,
    champion: UnitScores,
    tolerance: float,
    *,
    level: float,
    seed: int = 0,
    resamples: int = RESAMPLES // 2,
) -> Loss:
    """Tell whether a candidate loses more than `tolerance`: only what a paired bootstrap shows counts.

    A champion that rightly answered nothing, where there is nothing, has lost nothing: what the candidate invents
    there counts against it, although the champion's score is absent; see
    :attr:`~cytoray_analysis.tasks.metrics.Metric.faultless`.

    Parameters
    ----------
    level
        How often a loss of just `tolerance` may be called more than that.
    """
    new, old = candidate.whole.get(metric), champion.whole.get(metric)
    verdict: Literal["worse", "kept", "unknown"] = "unknown"
    faultless = metric_named(metric).faultless
    units = _evidence(metric, candidate) if faultless else carrying(metric, candidate, champion)
    before = 1.0 if old is None and faultless else old
    if new is not None and before is not None and units >= FEW:
        values, others = _resampled_pair(metric, candidate, champion, seed=seed, resamples=resamples)
        gains = _gains(metric, values, np.where(np.isnan(others) & faultless, 1.0, others))
        allowed = max(corrected_level(units, level), 1 / (1 + resamples))
        lost, kept = (
            (1 + int(np.count_nonzero(~one))) / (1 + resamples) for one in (gains < -tolerance, gains >= -tolerance)
        )
        if lost <= allowed and metric_named(metric).gain(new, before) < -tolerance:
            verdict = "worse"
        elif kept <= allowed:
            verdict = "kept"
    return Loss(name, metric, new, old, tolerance, units, verdict)


def carrying(metric: str, *models: UnitScores) -> int:
    """Return how many units are evidence: those that have anything to count of the score, of each model."""
    return min(_evidence(metric, one) for one in models)


def _evidence(metric: str, model: UnitScores) -> int:
    return model.carrying(metric) if metric in model.of else 0


def _resampled_pair(
    metric: str, candidate: UnitScores, champion: UnitScores, *, seed: int, resamples: int
) -> tuple[Numbers, Numbers]:
    """Draw the same units for both; a champion that lacks the score has none in any draw."""
    if metric in champion.of:
        values, others = resampled([candidate, champion], metric, seed=seed, resamples=resamples)
        return values, others
    (values,) = resampled([candidate], metric, seed=seed, resamples=resamples)
    return values, np.full(resamples, np.nan)


def _gains(metric: str, new: Numbers, old: Numbers) -> Numbers:
    known = metric_named(metric)
    if known.better == "nearer":
        return np.abs(old - known.target) - np.abs(new - known.target)
    return new - old if known.better == "higher" else old - new


def seed_of(*digests: str) -> int:
    """Return a number that follows from what is compared."""
    return int("".join(digest[:8] for digest in digests if DIGEST.fullmatch(digest)) or "0", 16)
