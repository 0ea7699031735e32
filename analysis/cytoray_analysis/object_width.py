"""The usual width of objects in a label image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def usual_width(labels: NDArray[Any]) -> float | None:
    """Return the median over objects of the diameter of a disk or ball of the same size.

    Parameters
    ----------
    labels
        (Y, X) or (Z, Y, X) integers, 0 or less for no object.

    Returns
    -------
    float or None
        In pixels along Y and X, as if voxels were cubes; None without objects.
    """
    sizes = np.unique(labels[labels > 0], return_counts=True)[1]
    if not len(sizes):
        return None
    size = float(np.median(sizes))
    return float(2 * np.sqrt(size / np.pi)) if labels.ndim == 2 else float(np.cbrt(6 * size / np.pi))
