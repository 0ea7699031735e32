"""The deviation of predicted probabilities from observed frequencies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DRAWN, _FEWEST_DRAWS, _MOST_DRAWS = 20_000_000, 100, 1000  # answers in all; a large n needs fewer draws


def binned_calibration_error(
    confidence: NDArray[np.floating[Any]], right: NDArray[np.bool_] | NDArray[np.floating[Any]], bins: int
) -> float:
    """Return the expected calibration error (Guo et al., ICML 2017, arXiv:1706.04599).

    Answers are put into equal bins of their confidence; the error is the difference of mean confidence and share of
    right answers per bin, weighted by the answers in it. 0 is best; NaN where there is no answer.

    Parameters
    ----------
    confidence
        (n,), 0 to 1.
    right
        (n,) whether each answer is right.
    bins
        How many.
    """
    if not len(confidence):
        return float("nan")
    sure = confidence.astype(np.float64)
    number = np.minimum((sure * bins).astype(np.int64), bins - 1)
    return float(np.abs(np.bincount(number, weights=sure - right, minlength=bins)).sum() / len(sure))


@dataclass(frozen=True)
class CalibratedError:
    """The calibration error that perfectly calibrated answers show, since their number is finite.

    Attributes
    ----------
    mean
        Expected value.
    high
        95 % quantile: an error above it shows that answers are not calibrated.
    """

    mean: float
    high: float

    def beside(self, error: float) -> str:
        """Describe an error with its reference values."""
        return f"{error:.3f} ({self.mean:.3f} is expected of calibrated answers at this n, {self.high:.3f} at most)"


def expected_calibration_error_when_calibrated(
    confidence: NDArray[np.floating[Any]], bins: int = 15, *, seed: int = 0
) -> CalibratedError:
    """Return which :func:`binned_calibration_error` answers of such confidences have if they are calibrated.

    Whether each is right is drawn many times from what it states (consistency resampling: Bröcker & Smith, Weather
    Forecast. 22, 651 (2007)).

    Parameters
    ----------
    confidence
        (n,), 0 to 1, n of at least 1.
    bins
        As of the error.
    seed
        Of the draw: the same question gets the same answer.
    """
    random, sure = np.random.default_rng(seed), confidence.astype(np.float64)
    draws = int(np.clip(_DRAWN // len(sure), _FEWEST_DRAWS, _MOST_DRAWS))
    errors = [binned_calibration_error(sure, random.random(len(sure)) < sure, bins) for _ in range(draws)]
    return CalibratedError(float(np.mean(errors)), float(np.quantile(errors, 0.95)))
