"""How far stated probabilities are from what is true."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def binned_calibration_error(
    confidence: NDArray[np.floating[Any]], right: NDArray[np.bool_] | NDArray[np.floating[Any]], bins: int
) -> float:
    """Return the expected calibration error (Guo et al., ICML 2017, arXiv:1706.04599).

    Answers are put into equal bins of their confidence; the error is the difference of mean confidence and share of
    right answers per bin, weighted by the answers in it. 0 is best, and said where there is no answer.

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
        return 0.0
    sure = confidence.astype(np.float64)
    number = np.minimum((sure * bins).astype(np.int64), bins - 1)
    return float(np.abs(np.bincount(number, weights=sure - right, minlength=bins)).sum() / len(sure))
