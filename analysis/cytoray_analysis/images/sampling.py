"""Measuring intensities of an image that may be larger than memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from cytoray_analysis.images.image import Image, require_finite
from cytoray_analysis.images.intensity import IntensityScaling, measure_range

_BLOCK = 256
_PLANES = 8
_PART = 2048  # pixels along Y and X of a block, if all of a large image is read


def measure_image(image: Image, scaling: IntensityScaling) -> tuple[np.ndarray, np.ndarray]:
    """Return :func:`measure_range` of an image; read all of a large one before it counts as empty.

    Raises
    ------
    ImageError, UnreadableImageError
        As :func:`sample_for_statistics` does.
    """
    sample = sample_for_statistics(image)
    begin, spread = measure_range(sample, scaling)
    full = image.select("TCZYX")
    if spread.all() or sample[0].size == math.prod(full.shape) // len(sample):
        return begin, spread
    for part in _parts(full.shape):
        begin_here, spread_here = measure_range(_as_planes(full.read(part), image.source), scaling)
        found = (spread == 0) & (spread_here > 0)
        begin[found], spread[found] = begin_here[found], spread_here[found]
        if spread.all():
            break
    return begin, spread


def _parts(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    frames, _, depth, rows, columns = shape
    for frame, plane in itertools.product(range(frames), range(depth)):
        for top, left in itertools.product(range(0, rows, _PART), range(0, columns, _PART)):
            yield _one(frame), slice(None), _one(plane), slice(top, top + _PART), slice(left, left + _PART)


def sample_for_statistics(image: Image, *, at_most_pixels: int = 2**22) -> np.ndarray:
    """Read enough of an image to measure its intensities.

    Parameters
    ----------
    image
        Any image, possibly larger than memory.
    at_most_pixels
        Images up to this many pixels per channel are read whole; of larger ones, blocks of 256 × 256 (at least one) are
        read on a regular grid in up to eight planes, at a cost that does not grow with the image. The result is
        deterministic.

    Returns
    -------
    numpy.ndarray
        (C, N, Y, X) planes, or blocks of planes, of the image's own type.

    Raises
    ------
    ImageError
        When a sampled pixel is NaN or infinite.
    UnreadableImageError
        When the file is damaged.
    """
    full = image.select("TCZYX")
    frames, _, depth, rows, columns = full.shape
    if frames * depth * rows * columns <= at_most_pixels:
        return _as_planes(full.read(), image.source)
    count = max(1, min(_PLANES, frames * depth, at_most_pixels // _BLOCK**2))
    planes = np.unique(np.linspace(0, frames * depth - 1, count + 2)[1:-1].round().astype(int))
    per_side = max(1, int((at_most_pixels / len(planes)) ** 0.5) // _BLOCK)
    parts = [
        _as_planes(
            full.read((_one(plane // depth), slice(None), _one(plane % depth), vertical, horizontal)),
            image.source,
        )
        for plane in planes
        for vertical in _blocks(rows, per_side)
        for horizontal in _blocks(columns, per_side)
    ]
    return np.concatenate(parts, axis=1)


def _as_planes(pixels: np.ndarray, source: str) -> np.ndarray:
    """Return (T, C, Z, Y, X) pixels as (C, T·Z, Y, X)."""
    require_finite(pixels, source)
    return np.moveaxis(pixels, 1, 0).reshape(pixels.shape[1], -1, *pixels.shape[3:])


def _one(index: Any) -> slice:
    return slice(int(index), int(index) + 1)


def _blocks(length: int, count: int) -> list[slice]:
    """Return blocks in the middle of `count` equal parts of an axis."""
    centres = [round((index + 0.5) * length / count) for index in range(count)]
    starts = sorted({min(max(centre - _BLOCK // 2, 0), max(length - _BLOCK, 0)) for centre in centres})
    return [slice(start, min(start + _BLOCK, length)) for start in starts]
