"""Whether a picture contains more than camera noise, in any unit and at any bit depth.

Scaling each image by its own range would amplify the noise of a dark frame until it looks like objects. The width of
the range is not informative, because copies of one picture differ in it; the correlation of neighbouring pixels is.
White noise has none: the mean of a block of n pixels has an n-th of the variance of a pixel. In structures larger than
a pixel it has more. Ranges, offsets, hot pixels, banding and slow glow of a camera have no influence.

Smoothed or resampled noise correlates only with its nearest neighbours: every second or third pixel is white noise
again, and its values follow a normal distribution, unlike those of small bright objects.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_WINDOW = 32  # pixels along Y and X: what varies more slowly is the camera's or the lamp's, and does not count
_BLOCK = 4
_SHIFTS = ((2, 2), (2, 0), (0, 2))
_ALONE = 0.25  # agreement in one window that shows an object there; noise stays below 0.22
_FEWEST = 8.0  # pixels that are no object; where few pixels are above a grey level, some touch by chance
_TOGETHER = 0.07  # agreement over all windows; noise stays below 0.05, real images begin at 0.1
_CLEAR = 15.0  # ranges of so many noises are never noise; that of white noise is 5
_PROBE = 2**15  # number of pixels for the estimate of the noise
_STRIP = 2**17  # pixels that are looked at together
_STEPS = (2, 3)  # pixels from one to the next in which smoothed noise is white
_FAR = 6.5  # standard deviations that no value of noise is from the mean
_MANY = 4 * _WINDOW  # of those pixels along Y and X at least: a few windows of fine texture look like smoothed noise
_SKEWNESS, _KURTOSIS = (
    0.3,
    1.2,
)  # at most, of values that count as normal; those of smoothed noise are below 0.1 and 1.1


def only_noise(planes: NDArray[np.generic], spread: float) -> bool:
    """Whether planes of one channel contain only noise that differs from pixel to pixel, and hot pixels.

    Parameters
    ----------
    planes
        (N, Y, X) pixels of any type, finite. Planes below 32 x 32 are too small for a decision, and count as a picture.
    spread
        Range of the intensities.

    Returns
    -------
    bool
        False for planes that are constant.
    """
    if spread <= 0 or min(planes.shape[1:]) < _WINDOW or _is_clear(planes, spread):
        return False
    if _is_white(planes, spread):
        return True
    steps = [step for step in _STEPS if min(planes.shape[1:]) >= _MANY * step]
    return any(_is_white(planes[:, ::step, ::step], spread) for step in steps) and _is_normal(planes, spread)


def _is_white(planes: NDArray[np.generic], spread: float) -> bool:
    """Whether pixels are uncorrelated."""
    pixels, blocks, uncentred, fourths, count = 0.0, 0.0, 0.0, 0.0, 0
    for windows in _windows(planes, spread):
        windows -= windows.mean(axis=(1, 2), keepdims=True)
        before = np.square(windows).mean(axis=(1, 2))
        # Rows and columns: banding, halves that are read out apart, and slopes.
        windows -= windows.mean(axis=1, keepdims=True)
        windows -= windows.mean(axis=2, keepdims=True)
        variance, fourth = np.square(windows).mean(axis=(1, 2)), np.square(np.square(windows)).mean(axis=(1, 2))
        between = _between(windows, 0, 0)
        # A small object may lie across four blocks, or in one of a grid that is shifted by half.
        shifted = [_between(windows, down, right) for down, right in _SHIFTS]
        alone = _agreement(np.maximum.reduce([between, *shifted]), variance) > _ALONE
        if (alone & (_carriers(variance, fourth, 1) > _FEWEST)).any():
            return False
        pixels, blocks, uncentred = pixels + variance.sum(), blocks + between.sum(), uncentred + before.sum()
        fourths, count = fourths + fourth.sum(), count + len(windows)
    if pixels < 0.3 * uncentred:  # lines along the axes, no banding
        return False
    if _carriers(np.array(pixels / count), np.array(fourths / count), count) <= _FEWEST:
        return True
    return bool(_agreement(np.array([blocks]), np.array([pixels]))[0] < _TOGETHER)


def _is_normal(planes: NDArray[np.generic], spread: float) -> bool:
    """Whether values follow a normal distribution, in every window about its own mean."""
    for windows in _windows(planes, spread, isolated=True):
        windows -= windows.mean(axis=(1, 2), keepdims=True)
        second, third, fourth = (np.power(windows, power).mean(dtype=np.float64) for power in (2, 3, 4))
        if second <= 0 or abs(third) > _SKEWNESS * second**1.5 or fourth > (3 + _KURTOSIS) * second**2:
            return False
        if np.square(windows).max() > _FAR**2 * second:
            return False
    return True


def _between(windows: NDArray[np.float32], down: int, right: int) -> NDArray[np.floating]:
    """Return the mean square of the blocks of each window; the grid begins at a pixel."""
    kept = windows[:, down : _WINDOW - down, right : _WINDOW - right]
    _, rows, columns = kept.shape
    means = kept.reshape(-1, rows // _BLOCK, _BLOCK, columns // _BLOCK, _BLOCK).mean(axis=(2, 4))
    squares: NDArray[np.floating] = np.square(means).mean(axis=(1, 2))
    return squares


def _agreement(between: NDArray[np.floating], variance: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the mean correlation of different pixels of a block: 0 for white noise, 1 where blocks are uniform."""
    count = _BLOCK**2
    share = np.divide(count * between, variance, out=np.ones_like(variance), where=variance > 1e-10)
    agreement: NDArray[np.float64] = (share - 1.0) / (count - 1.0)
    return agreement


def _carriers(variance: NDArray[np.floating], fourth: NDArray[np.floating], windows: int) -> NDArray[np.floating]:
    """Return how many pixels of some windows carry their variance: n of n equal ones, of white noise a third of all."""
    none = np.zeros_like(variance)
    carriers: NDArray[np.floating] = np.divide(np.square(variance), fourth, out=none, where=fourth > 0)
    return carriers * (windows * _WINDOW**2)


def _is_clear(planes: NDArray[np.generic], spread: float) -> bool:
    """Whether the range is so wide, and reached within so few pixels, that noise cannot be it: most images."""
    rows = planes.reshape(-1, planes.shape[2])
    rows = rows[:: max(1, rows.size // _PROBE)].astype(np.float64) / spread
    steps = np.diff(rows, axis=1)
    if np.count_nonzero(steps) * 2 < steps.size:  # mostly flat: a few grey levels do not show noise
        return False
    noise, nearby = (np.sqrt(np.square(one).mean()) for one in (steps, rows[:, 16:] - rows[:, :-16]))
    return bool(noise * _CLEAR < np.sqrt(2.0) and nearby > 2.0 * noise)


def _windows(planes: NDArray[np.generic], spread: float, *, isolated: bool = False) -> Iterator[NDArray[np.float32]]:
    """Yield windows that cover all planes, (n, 32, 32), some rows at a time, with or without isolated pixels.

    The last windows overlap where the sides are no multiple.
    """
    _, rows, columns = planes.shape
    across = (_starts(columns)[:, None] + np.arange(_WINDOW)).reshape(-1)
    together = max(1, _STRIP // (_WINDOW * columns))
    for plane in planes:
        starts = _starts(rows)
        for first in range(0, len(starts), together):
            down = (starts[first : first + together, None] + np.arange(_WINDOW)).reshape(-1)
            top, bottom = max(int(down[0]) - 1, 0), min(int(down[-1]) + 2, rows)
            values = (plane[top:bottom].astype(np.float64) - float(plane.flat[0])) / spread
            strip = values.clip(-1e6, 1e6).astype(np.float32)
            strip = (strip if isolated else _without_isolated(strip))[down - top][:, across]
            windows = strip.reshape(-1, _WINDOW, len(across) // _WINDOW, _WINDOW).transpose(0, 2, 1, 3)
            yield windows.reshape(-1, _WINDOW, _WINDOW)


def _starts(length: int) -> NDArray[np.intp]:
    starts: NDArray[np.intp] = np.linspace(0, length - _WINDOW, -(-length // _WINDOW)).astype(np.intp)
    return starts


def _without_isolated(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring every pixel into the range of its eight neighbours: hot and dead pixels vanish, objects stay."""
    rows, columns = pixels.shape
    padded = np.pad(pixels, 1, mode="reflect")
    lowest = np.full_like(pixels, np.inf)
    highest = np.full_like(pixels, -np.inf)
    for down in range(3):
        for right in range(3):
            if (down, right) != (1, 1):
                neighbour = padded[down : down + rows, right : right + columns]
                np.minimum(lowest, neighbour, out=lowest)
                np.maximum(highest, neighbour, out=highest)
    return np.clip(pixels, lowest, highest)
