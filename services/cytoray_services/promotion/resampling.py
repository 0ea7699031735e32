"""Whether one model is better than another by more than chance: randomisation test and paired bootstrap over images.

Better: the answers of both are exchanged at random, image by image, and the scores of all images are computed again.
The test keeps its level for every number of images and every score, while the bootstrap passes equal models too often
(Riezler & Maxwell, On Some Pitfalls in Automatic Evaluation and Significance Testing for MT, ACL Workshop 2005).

Loss beyond a tolerance, which exchanges cannot test: images are drawn with replacement, the same ones for both
(Efron & Tibshirani, An Introduction to the Bootstrap, 1993; paired: Koehn, Statistical Significance Tests for Machine
Translation Evaluation, EMNLP 2004).

Images of one group are exchanged or drawn together, because they are not independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.tasks.metrics import metric_named
from cytoray_services.registry.versions import DIGEST
from cytoray_services.statistics import FEW
from cytoray_services.statistics.counts import UnitScores
from cytoray_services.statistics.resampling import corrected_level, exchanged, resampled

# Of ten equal candidates two or more pass by luck with a probability of 0.4 %; at 2.5 % it would be 2.5 %.
LEVEL = 0.01
ALL_ATTEMPTS = 0.05  # maximum probability that any candidate on one evaluation set passes by luck
LOSSES = 0.05  # maximum probability that an equal model is rejected for a loss in any group or score
RESAMPLES = 20_000
MOST_RESAMPLES = 200_000
_WITHIN = 10  # minimum number of exchanges within the level, so that their number hardly changes a verdict

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Comparison:
    """The comparison of a candidate with the champion.

    Attributes
    ----------
    metric
        The score.
    candidate, champion
        Their scores over all images.
    differences
        How much better the candidate is, in the direction of the metric: as found, then with exchanged answers; NaN if
        there was nothing to count.
    images, groups
        Number of images, and number of independent units with anything to count.
    probability
        One-sided: the share of `differences` that are at least as large as the one found.
    level
        The maximum of `probability`.
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
        """How much better the candidate is, in the unit of the metric."""
        return metric_named(self.metric).gain(self.candidate, self.champion)

    @property
    def better(self) -> bool:
        """Whether the candidate is better by more than chance."""
        return self.gain > 0 and self.probability <= self.level

    @property
    def least_groups(self) -> int:
        """The minimum number of groups: n groups have 2ⁿ exchanges, one of which is the luckiest."""
        return math.ceil(-math.log2(self.level))


@dataclass(frozen=True)
class Loss:
    """Whether the candidate loses more than the tolerance, in one group or one score.

    Attributes
    ----------
    name
        Name of the group or score.
    metric
        The score.
    candidate, champion
        Their scores; None if there is nothing to count.
    tolerance
        The tolerated loss, in the unit of the metric.
    groups
        Number of units with anything to count.
    verdict
        ``worse``: a significant loss; ``kept``: significantly no loss; ``unknown``: too few units.
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

    The first is tested at :data:`LEVEL`, later ones at decreasing levels, so that any number of them together stays
    below :data:`ALL_ATTEMPTS`: 0.05 · 4 / ((k + 3)(k + 4)), whose sum over all k is 0.05 (alpha spending: Foster &
    Stine, J. R. Stat. Soc. B 70, 429 (2008)).
    """
    first = ALL_ATTEMPTS / LEVEL - 1
    return ALL_ATTEMPTS * first / ((attempt + first - 1) * (attempt + first))


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
    """Compare two models on the same images.

    Parameters
    ----------
    metric
        A score of the task.
    candidate, champion
        Answers and truths, image by image.
    groups
        The group of each image.
    score
        The score function of the task.
    seed
        Random seed: the same comparison has the same result, so that a repetition is no second chance.
    resamples
        Minimum number of resamples; `level` may require more.
    level
        Probability that an equal candidate passes by luck.
    """
    resamples = min(max(resamples, math.ceil(_WITHIN / level)), MOST_RESAMPLES)
    differences = _gains(metric, *exchanged(candidate, champion, metric, seed=seed, resamples=resamples))
    new, old = candidate.whole[metric], champion.whole[metric]
    rounding = 1e-9 * max(1.0, abs(new), abs(old))
    # An exchange in which either has nothing to count counts against the candidate.
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
    """Test whether a candidate loses more than `tolerance`, with a paired bootstrap.

    A champion without objects, on images without objects, has a perfect answer: false objects of the candidate count
    against it, although the score of the champion is absent; see
    :attr:`~cytoray_analysis.tasks.metrics.Metric.faultless`.

    Parameters
    ----------
    level
        Probability that a loss of exactly `tolerance` is reported as larger.
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
    """Return the number of units that have anything to count of the score, the minimum over the models."""
    return min(_evidence(metric, one) for one in models)


def _evidence(metric: str, model: UnitScores) -> int:
    return model.carrying(metric) if metric in model.of else 0


def _resampled_pair(
    metric: str, candidate: UnitScores, champion: UnitScores, *, seed: int, resamples: int
) -> tuple[Numbers, Numbers]:
    """Draw the same units for both; a champion without the score has none in any draw."""
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
    """Return a seed derived from digests."""
    return int("".join(digest[:8] for digest in digests if DIGEST.fullmatch(digest)) or "0", 16)
