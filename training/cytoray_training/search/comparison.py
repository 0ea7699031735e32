"""Is the best recipe of a search better than the unchanged recipe? Decided by images that chose nothing.

The best of many trials was chosen by its score, so this score is too high: among equal recipes, the luckiest seed and
the luckiest validation win. Here both recipes are trained again with the same new seeds, and the models are scored on
the same images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.plural import counted
from cytoray_analysis.tasks.metrics import metric_named
from cytoray_services.statistics import FEW
from cytoray_services.statistics.counts import UnitScores
from cytoray_services.statistics.intervals import CONFIDENCE, few_units
from cytoray_services.statistics.resampling import resampled

_RESAMPLES = 4000


@dataclass(frozen=True)
class Compared:
    """The best recipe of a search compared with the unchanged recipe.

    Attributes
    ----------
    metric
        The score.
    best, first
        Scores of the best and of the unchanged recipe, means over seeds.
    gain
        By how much the best is better, in the unit of the metric, whatever its direction.
    low, high
        The 95 % interval of `gain`.
    seeds
        Number of training runs of each.
    units, unit
        Number of images, movies or groups that were scored, and which of these.
    verdict
        ``better`` if the whole interval is above 0, ``no better`` if it is below.
    """

    metric: str
    best: float
    first: float
    gain: float
    low: float
    high: float
    seeds: int
    units: int
    unit: str
    verdict: Literal["better", "no better", "inconclusive"]

    @property
    def sentence(self) -> str:
        """The result as a sentence."""
        what = {
            "better": "The best is better than the unchanged recipe",
            "no better": "The best is no better than the unchanged recipe",
            "inconclusive": "It is inconclusive whether the best is better than the unchanged recipe",
        }[self.verdict]
        few, over = few_units(self.units, self.unit), counted(self.units, self.unit)
        return (
            f"{what}: {self.metric} {self.best:.3f} compared with {self.first:.3f}, a gain of {self.gain:+.3f} "
            f"({self.low:+.3f} to {self.high:+.3f}), over {self.seeds} new seeds each and {over} "
            f"that chose nothing.{f' But {few}.' if few else ''}"
        )

    def described(self) -> dict[str, Any]:
        """Return the result as JSON types."""
        return {name: None if value in (math.inf, -math.inf) else value for name, value in asdict(self).items()}


def compare_recipes(
    metric: str, best: Sequence[UnitScores], first: Sequence[UnitScores], *, unit: str, seed: int = 0
) -> Compared:
    """Compare two recipes, each trained with the same number of seeds, on the same units.

    A difference has two random sources. The images: the paired bootstrap over units, of the means over seeds. The
    seeds: the variance between the seeds of a recipe. The two variances are added, and the interval is Student's t with
    the degrees of freedom of Welch and Satterthwaite (Biometrics Bulletin 2, 110 (1946)).

    Parameters
    ----------
    metric
        The score.
    best, first
        Scores of one model per seed, at least two.
    unit
        Name of a unit in the report.
    seed
        Of the bootstrap.
    """
    from scipy.stats import t

    seeds, units = len(best), best[0].units
    goodness = np.vectorize(metric_named(metric).goodness, otypes=[np.float64])
    whole = [np.array([one.whole[metric] for one in models]) for models in (best, first)]
    gain = float(goodness(whole[0]).mean() - goodness(whole[1]).mean())
    drawn = [goodness(one) for one in resampled([*best, *first], metric, seed=seed, resamples=_RESAMPLES)]
    gains: NDArray[np.float64] = np.mean(drawn[:seeds], axis=0) - np.mean(drawn[seeds:], axis=0)
    known = gains[np.isfinite(gains)]
    enough = units >= 2 and known.size > 1
    of_units = float(known.var()) * units / (units - 1) if enough else math.inf
    of_seeds = float(np.mean([goodness(one).var(ddof=1) for one in whole])) * 2 / seeds
    half = math.inf
    if enough:
        both = of_units + of_seeds
        freedom = both**2 / (of_units**2 / (units - 1) + of_seeds**2 / (2 * (seeds - 1))) if both else 1.0
        half = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(both)
    low, high = gain - half, gain + half
    verdict: Literal["better", "no better", "inconclusive"] = "inconclusive"
    if units >= FEW and (low > 0 or high < 0):
        verdict = "better" if low > 0 else "no better"
    means = [float(one.mean()) for one in whole]
    return Compared(metric, means[0], means[1], gain, low, high, seeds, units, unit, verdict)
