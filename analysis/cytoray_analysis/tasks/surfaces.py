"""How well the outlines of predicted objects lie on those of true objects."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation


def near_surfaces(
    answer: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]], known: NDArray[np.bool_] | None = None
) -> tuple[int, int]:
    """Count surface pixels of both label images that lie within 1 pixel of a surface of the other.

    Twice their share is the surface Dice at a tolerance of 1 pixel (Nikolov et al., J Med Internet Res 23, e26151
    (2021), arXiv:1809.04430), with the surface pixels of all objects as the surface: pixels of an object that have a
    neighbour along an axis in another object or in the background.

    Parameters
    ----------
    answer, truth
        Label images of one shape, 2D or 3D; 0 is background.
    known
        Pixels whose truth is known; None for all. A border to unknown pixels is no surface.

    Returns
    -------
    near, all
        Surface pixels of both images within 1 pixel of the other's surface, and all of them.
    """
    surfaces = surface(answer, known), surface(truth, known)
    near = sum(int(np.count_nonzero(one & binary_dilation(other))) for one, other in (surfaces, surfaces[::-1]))
    return near, sum(int(np.count_nonzero(one)) for one in surfaces)


def surface(labels: NDArray[np.integer[Any]], known: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Return the surface pixels of all objects; the border of the image, or of its known pixels, is no surface."""
    edge = np.zeros(labels.shape, np.bool_)
    for axis in range(labels.ndim):
        lower = tuple(slice(None, -1) if one == axis else slice(None) for one in range(labels.ndim))
        upper = tuple(slice(1, None) if one == axis else slice(None) for one in range(labels.ndim))
        differs = labels[lower] != labels[upper]
        if known is not None:
            differs &= known[lower] & known[upper]
        edge[lower] |= differs
        edge[upper] |= differs
    return edge & (labels > 0)
