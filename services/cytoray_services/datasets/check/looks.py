"""Traits and measures of the files of a data set, to find a file that differs from the others.

Damage changes the measures strongly: a flipped byte is a pixel that differs from its neighbours, lost bytes are a run
of equal pixels, shifted rows are a step between two rows, and misread bytes are noise. The values of a valid image
depend on stain and camera, so they are only compared with those of the other files: see
:mod:`cytoray_services.datasets.check.unlike`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.images import Image
from cytoray_analysis.images.axes import channel_names

UNKNOWN = "unknown"
_LARGEST_SIDE = 1024  # of larger planes, only the middle is measured
_MOST_PLANES = 8
_MOST_CHANNELS = 4
_SAMPLE = 2**17  # pixels for the measurement of levels
_TINY = 1e-6
_NOTHING = 1e-9  # smaller differences are rounding errors

_Plane = NDArray[np.float32]


@dataclass(frozen=True)
class Look:
    """Traits and measures of one file.

    Attributes
    ----------
    traits
        Texts that files of one set usually share, such as the type of pixels, by name.
    measures
        Numbers by name; see the functions that compute them.
    """

    traits: Mapping[str, str] = field(default_factory=dict)
    measures: Mapping[str, float] = field(default_factory=dict)


def look_of_image(image: Image, pixels: NDArray[Any]) -> Look:
    """Describe an image; `pixels` are its own, finite, with its axes."""
    channels = pixels.shape[image.axes.index("C")] if "C" in image.axes else 1
    measures: dict[str, float] = {}
    for channel in range(min(channels, _MOST_CHANNELS)):
        plane = np.take(pixels, channel, axis=image.axes.index("C")) if "C" in image.axes else pixels
        where = f", channel {channel}" if channels > 1 else ""
        measures |= {f"{name}{where}": value for name, value in _measures_of_planes(_looked_at(plane)).items()}
    return Look(_traits(image), measures)


def contrast_of(pixels: NDArray[Any], labels: NDArray[np.integer[Any]]) -> dict[str, float]:
    """Return the contrast of objects to their surroundings, −1 to 1, in the first channel.

    Parameters
    ----------
    pixels
        (C, spatial…)
    labels
        (spatial…), 0 for background.
    """
    channel, inside = pixels[0], labels > 0
    low, _, high = _levels(channel)
    if high <= low or inside.all() or not inside.any():
        return {}
    bright, dark = float(channel[inside].mean(dtype=np.float64)), float(channel[~inside].mean(dtype=np.float64))
    return {"contrast": (bright - dark) / (high - low)}


def look_of_target(target: Image, pixels: NDArray[Any], fit: float | None) -> Look:
    """Describe a target image; `fit` is the share of its edges that its input has."""
    look = look_of_image(target, pixels)
    return look if fit is None else Look(look.traits, {**look.measures, "fit": fit})


def look_of_mask(mask: Image, labels: NDArray[np.integer[Any]], fit: float | None) -> Look:
    """Describe a mask of objects or classes; `labels` are integers from 0, `fit` is the fit with its image."""
    measures = _measures_of_mask(labels) if labels.any() else {}
    return Look(_traits(mask), measures if fit is None else measures | {"fit": fit})


def _traits(image: Image) -> dict[str, str]:
    size, names = image.pixel_size, image.channels
    return {
        "type": str(image.dtype),
        "size": " × ".join(str(length) for length in image.spatial_shape),
        "channels": UNKNOWN if names == channel_names(None, len(names)) else ", ".join(names),
        "pixel size": " × ".join(f"{length:.4g}" for length in size.values()) + " µm" if size else UNKNOWN,
    }


def _looked_at(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return (plane, Y, X): some planes, and the middle of large ones."""
    planes = pixels.reshape(-1, *pixels.shape[-2:])
    if len(planes) > _MOST_PLANES:
        planes = planes[np.unique(np.linspace(0, len(planes) - 1, _MOST_PLANES).round().astype(int))]
    top, left = (max(0, (length - _LARGEST_SIDE) // 2) for length in planes.shape[-2:])
    part: NDArray[Any] = planes[:, top : top + _LARGEST_SIDE, left : left + _LARGEST_SIDE]
    return part


def _measures_of_planes(stored: NDArray[Any]) -> dict[str, float]:
    planes = stored.astype(np.float32)
    low, middle, high = _levels(planes)
    spread = high - low
    measures = {
        "brightness": float(np.log2(max(high, _TINY))),
        "range": float(np.log2(max(spread, _TINY))),
        "equal run": float(np.log2(_longest_run(stored))),
        "at its smallest value": float(np.log2(np.count_nonzero(stored == stored.min()))),
    }
    if stored.dtype.kind in "ui":
        measures["steps"] = _steps(stored)
    if spread > _TINY * max(abs(high), _TINY):
        measures["polarity"] = (middle - low) / spread
    if min(planes.shape[-2:]) >= 4 and spread > 0:
        measures |= _measures_of_neighbours(planes, spread)
    return measures


def _levels(pixels: NDArray[Any]) -> tuple[float, float, float]:
    """Return the 1 %, 50 % and 99 % quantiles of the pixels, approximate for large images."""
    sample = pixels.reshape(-1)[:: max(1, pixels.size // _SAMPLE)]
    low, middle, high = (float(value) for value in np.quantile(sample.astype(np.float64), (0.01, 0.5, 0.99)))
    return low, middle, high


def _measures_of_neighbours(planes: _Plane, spread: float) -> dict[str, float]:
    rest = np.abs(planes[:, 1:-1, 1:-1] - _among_neighbours(planes))
    typical = float(rest.mean())
    measures = {"roughness": float(np.log2(max(typical / spread, _TINY)))}
    if typical > _NOTHING:
        measures["spike"] = float(np.log2(rest.max() / typical))
    for axis, name in ((1, "row"), (2, "column")):
        steps = np.abs(np.median(np.diff(planes, axis=axis), axis=3 - axis))
        usual = float(steps.mean()) + typical
        measures[f"{name} step"] = float(np.log2(max(float(steps.max()) / max(usual, _NOTHING), _TINY)))
    return measures


def _among_neighbours(planes: _Plane) -> _Plane:
    """Return the mean of the middle two of the four neighbours of each inner pixel."""
    sides = (planes[:, :-2, 1:-1], planes[:, 2:, 1:-1], planes[:, 1:-1, :-2], planes[:, 1:-1, 2:])
    low, high = sides[0].copy(), sides[0].copy()
    total = sides[0].copy()
    for side in sides[1:]:
        np.minimum(low, side, out=low)
        np.maximum(high, side, out=high)
        total += side
    middle: _Plane = (total - low - high) / np.float32(2)
    return middle


def _longest_run(pixels: NDArray[Any]) -> int:
    """Return the length of the longest run of equal pixels, in storage order.

    The largest value does not count, because bright objects may saturate the camera.
    """
    flat = np.ascontiguousarray(pixels).ravel()
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    lengths = np.diff(np.concatenate((starts, [flat.size])))
    return int(lengths[flat[starts] < flat.max()].max(initial=1))


def _steps(stored: NDArray[Any]) -> float:
    """Return the largest step that all values are multiples of, as a power of 2: 4 where 12 bits fill 16."""
    values = np.unique(stored).astype(np.int64)
    divisor = int(np.gcd.reduce(values)) if len(values) > 2 else 0
    return float(np.log2(divisor)) if divisor > 0 else 0.0


def _measures_of_mask(labels: NDArray[np.integer[Any]]) -> dict[str, float]:
    from skimage.measure import label

    pieces: NDArray[np.integer[Any]] = label(labels, connectivity=labels.ndim)  # type: ignore[no-untyped-call]
    areas = np.bincount(pieces.ravel())[1:]
    cut = np.zeros(len(areas) + 1, bool)  # by the sides of the image: the visible part may have any size
    for side in (pieces[..., 0, :], pieces[..., -1, :], pieces[..., :, 0], pieces[..., :, -1]):
        cut[side.ravel()] = True
    whole = areas[~cut[1:]]
    numbers = np.unique(labels)
    numbers = numbers[numbers > 0]
    planes = labels.reshape(-1, *labels.shape[-2:])
    return {
        **({"smallest piece": float(np.log2(whole.min()))} if len(whole) else {}),
        "largest piece": float(np.log2(areas.max())),
        "pieces": float(np.log2(len(areas) / len(numbers))),
        "covered": float(np.log2(np.count_nonzero(labels) / labels.size)),
        "numbers": float(np.log2(float(numbers.max()) / len(numbers))),
        "stray pixels": float(np.log2(1 + _count_strays(planes))),
        "holes": float(np.log2(1 + _count_holes(planes))),
        "straight edge": float(np.log2(1 + max(_straight_edges(planes)))),
        "outline": float(np.log2(max(1, _count_borders(planes)) / np.sqrt(areas.astype(float)).sum())),
    }


def _count_strays(planes: NDArray[Any]) -> int:
    """Count isolated pixels of objects, without another one within two pixels or in the neighbour planes.

    The ends of objects in a volume may be single pixels of a plane.
    """
    middle = planes[:, 1:-1, 1:-1]  # not those at the sides of the image
    stray = middle != 0
    for side in (planes[:, 2:, 1:-1], planes[:, :-2, 1:-1], planes[:, 1:-1, :-2], planes[:, 1:-1, 2:]):
        stray &= side != middle
    count = 0
    for plane, row, column in np.argwhere(stray):
        value = planes[plane, row + 1, column + 1]
        around = planes[max(0, plane - 1) : plane + 2, max(0, row - 1) : row + 4, max(0, column - 1) : column + 4]
        count += int(np.count_nonzero(around == value) == 1)
    return count


def _count_holes(planes: NDArray[Any]) -> int:
    """Count pixels of background between four pixels of one object."""
    middle, above = planes[:, 1:-1, 1:-1], planes[:, :-2, 1:-1]
    hole = (middle == 0) & (above != 0)
    for side in (planes[:, 2:, 1:-1], planes[:, 1:-1, :-2], planes[:, 1:-1, 2:]):
        hole &= side == above
    return int(np.count_nonzero(hole))


def _straight_edges(planes: NDArray[Any]) -> Iterator[int]:
    """Yield, for each border between rows, the longest run of pixels in which the two rows differ."""
    differs = planes[:, 1:] != planes[:, :-1]
    padded = np.zeros((*differs.shape[:2], differs.shape[2] + 2), np.int8)
    padded[..., 1:-1] = differs
    change = np.diff(padded.reshape(-1))
    starts, ends = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
    yield int((ends - starts).max(initial=0))


def _count_borders(planes: NDArray[Any]) -> int:
    return int(
        np.count_nonzero(planes[:, 1:] != planes[:, :-1]) + np.count_nonzero(planes[:, :, 1:] != planes[:, :, :-1])
    )
