"""The shift of a target against its input, also if the two look very different.

A stain may be bright where transmitted light is dark, but both have their edges in the same places: the shift is that
at which the gradient magnitudes of the two correlate most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import ImageError
from cytoray_analysis.mask_fit import Turn, turned, turns

# Measured correlations: 0.33 to 0.9 for matching pairs, at most 0.25 for others.
TRUSTED = 0.3
# In pixels. Measured shifts: up to 0.9 for good pairs, 2.2 or more for pairs that are 3 apart.
TOLERANCE = 2.0
_PARTS_OF_A_PIXEL = 4
_EDGE_WIDTH = 2.0  # σ of the derivative, in pixels
_LARGEST_SIDE = 1024
_MOST_PLANES = 16


@dataclass(frozen=True)
class Shift:
    """The position of a target relative to its input.

    Attributes
    ----------
    pixels
        Shift of the target onto the input, along Y and X.
    confidence
        Correlation of the edges of the two when it is so moved, 0 to 1.
    """

    pixels: tuple[float, float]
    confidence: float

    @property
    def trusted(self) -> bool:
        """Whether the two have enough edges in common for the shift to mean something."""
        return self.confidence >= TRUSTED

    @property
    def distance(self) -> float:
        """Length of the shift, in pixels."""
        return float(np.hypot.reduce(self.pixels))

    @property
    def misplaced(self) -> bool:
        """Whether the target is certainly shifted against its input."""
        return self.trusted and self.distance > TOLERANCE


def estimate_shift(image: NDArray[Any], target: NDArray[Any]) -> Shift:
    """Estimate how far a target is shifted against its input along Y and X, to a quarter of a pixel.

    Not along Z: what is in focus in transmitted light is not where the stain is brightest.

    Parameters
    ----------
    image, target
        (…, Y, X) of the same height and width: channels and planes before them, as many as there are. NaN where
        unknown. Of large images the middle is looked at.

    Returns
    -------
    Shift
        Up to half of the side of what is looked at. Without edges in one of the two, a shift of zero with a confidence
        of zero.

    Raises
    ------
    ImageError
        Height or width differ.
    """
    if image.shape[-2:] != target.shape[-2:]:
        raise ImageError(
            f"expected an input and a target of one size, got {image.shape[-2:]} and {target.shape[-2:]}",
            field="target",
        )
    return _shift_of(_edges(image), _edges(target))


def estimate_turn(image: NDArray[Any], target: NDArray[Any]) -> tuple[Turn, Shift]:
    """Mirror a target, and exchange its Y and X if both have the same length, for the best match with its input.

    Parameters
    ----------
    image, target
        As for :func:`estimate_shift`.

    Returns
    -------
    Turn, Shift
        The best transformation other than none, and the position of the target then.
    """
    fixed, moving = _edges(image), _edges(target)
    _, *others = turns(moving.shape)
    found = {turn: _shift_of(fixed, turned(moving, turn)) for turn in others}
    best = max(others, key=lambda turn: found[turn].confidence)
    return best, found[best]


def _shift_of(fixed: NDArray[np.float32], moving: NDArray[np.float32]) -> Shift:
    from skimage.registration import phase_cross_correlation

    if not fixed.any() or not moving.any():
        return Shift((0.0, 0.0), 0.0)
    # Without whitening: the phase of every frequency alone is mostly noise between two modalities.
    pixels, error, _ = phase_cross_correlation(fixed, moving, normalization=None, upsample_factor=_PARTS_OF_A_PIXEL)  # type: ignore[no-untyped-call]
    confidence = float(np.sqrt(max(0.0, 1.0 - float(error) ** 2)))
    return Shift((float(pixels[0]), float(pixels[1])), confidence)


def _edges(image: NDArray[Any]) -> NDArray[np.float32]:
    """Add up the edges of all planes, each of zero mean and unit deviation; (Y, X) float32, 0 where there is none."""
    from scipy.ndimage import gaussian_gradient_magnitude

    top, left = (max(0, (length - _LARGEST_SIDE) // 2) for length in image.shape[-2:])
    planes = image[..., top : top + _LARGEST_SIDE, left : left + _LARGEST_SIDE]
    planes = planes.reshape(-1, *planes.shape[-2:])
    total = np.zeros(planes.shape[1:], np.float32)
    for place in np.unique(np.linspace(0, len(planes) - 1, _MOST_PLANES).round().astype(int)):
        pixels = planes[place].astype(np.float32)
        known = np.isfinite(pixels)
        if not known.all():
            pixels = np.where(known, pixels, np.float32(np.median(pixels[known]) if known.any() else 0.0))
        # The root, so that a few bright cells do not outweigh the many dim ones.
        strength = np.sqrt(gaussian_gradient_magnitude(pixels, _EDGE_WIDTH, mode="nearest"))
        strength -= strength.mean()
        deviation = float(strength.std())
        if deviation > 0:
            total += strength / deviation
    return total
