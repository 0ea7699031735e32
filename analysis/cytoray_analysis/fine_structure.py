"""Whether two pictures are equal except for brightness and contrast."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.images import Image

_THUMBNAIL = 64
_SAMPLE = 2**20  # pixels that a line is fitted to
_LEAST_CORRELATION = 0.5
_MOST_STEPS = 1.2

Plane = NDArray[np.float32]


def middle_plane(image: Image) -> Plane:
    """Return (Y, X) float32: the mean over channels of the plane in the middle of a volume or a movie."""
    region = tuple(
        slice(None) if axis in "CYX" else slice(size // 2, size // 2 + 1)
        for axis, size in zip(image.axes, image.shape, strict=True)
    )
    pixels = image.read(region).astype(np.float32)
    plane: Plane = pixels.reshape(-1, *pixels.shape[-2:]).mean(axis=0)
    return plane


def fine_structure(plane: Plane) -> NDArray[np.float32]:
    """Return (64, 64): a plane without its coarse structure, with mean 0 and norm 1; 0 if nothing remains."""
    from scipy.ndimage import gaussian_filter
    from skimage.transform import resize

    sides = (_THUMBNAIL, _THUMBNAIL)
    small: Plane = resize(plane, sides, order=1, anti_aliasing=True, preserve_range=True)  # type: ignore[no-untyped-call]
    detail = small - gaussian_filter(small, 2.0)
    detail -= detail.mean()
    norm = float(np.linalg.norm(detail))
    # An empty field resembles every other empty field.
    empty = norm <= 1e-6 * max(float(np.abs(small).max()), 1.0)
    return np.zeros_like(detail, np.float32) if empty else (detail / norm).astype(np.float32)


def is_linear_copy(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether one picture is the other, stretched and rounded, as by ``v >> 8``, ``v / 257`` or min-max to 8 bits.

    A line is fitted, and its residuals must be within one step of the coarser of the two. Pixels at either end of one's
    range may have been cut off and do not count.

    Parameters
    ----------
    one, other
        Pixels of one shape.
    """
    step = max(1, one.size // _SAMPLE)
    first, second = (pixels.ravel()[::step].astype(np.float64) for pixels in (one, other))
    kept = np.ones(len(first), bool)
    for pixels in (first, second):
        if len(np.unique(pixels)) > 4:
            kept &= (pixels > pixels.min()) & (pixels < pixels.max())
    first, second = first[kept], second[kept]
    if len(first) < 16 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return False
    if float(np.corrcoef(first, second)[0, 1]) < _LEAST_CORRELATION:
        return False
    # The coarser one is what is explained: rounding leaves one of its steps.
    if len(np.unique(first)) < len(np.unique(second)):
        first, second = second, first
    levels = np.unique(second)
    rounding = float(np.diff(levels).min()) if len(levels) < len(second) / 2 else 0.0
    most = max(_MOST_STEPS * rounding, 4e-3 * float(second.std()))
    # Of few levels the slope is best found from the other side.
    slopes = np.polyfit(first, second, 1)[0], 1 / np.polyfit(second, first, 1)[0]
    return any(float(np.ptp(np.quantile(second - slope * first, (0.005, 0.995)))) <= most for slope in slopes)
