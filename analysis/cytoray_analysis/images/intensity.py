"""Intensity scaling: every image, bright or dim, 8 or 16 bit, in the same range for the network.

``scaled = (pixels - offset) * scale`` per channel. What the offset and the scale are measured on is the *scope*: the
image itself, or the training set. Percentile scaling as in Weigert et al., Nat Methods 15, 1090 (2018).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, Field, model_validator

from cytoray_analysis.errors import AxesError, BundleError, DatasetError
from cytoray_analysis.images.image import Image, require_finite

_BLOCK = 256
_PLANES = 8


class IntensityScaling(BaseModel, frozen=True, extra="forbid"):
    """How intensities are scaled.

    Parameters
    ----------
    method
        ``percentile`` maps the `low` percentile to 0 and the `high` one to 1; ``zscore`` maps the mean to 0 and one
        standard deviation to 1.
    scope
        ``image`` measures each image by itself; ``dataset`` uses the statistics of the training set, for stains whose
        absolute brightness means something.
    low, high
        Percentiles, 0 to 100.
    """

    method: Literal["percentile", "zscore"] = "percentile"
    scope: Literal["image", "dataset"] = "image"
    low: float = Field(default=1.0, ge=0.0, lt=100.0)
    high: float = Field(default=99.8, gt=0.0, le=100.0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got low={self.low} and high={self.high}")
        return self


class IntensityStatistics(BaseModel, frozen=True, extra="forbid"):
    """What was measured on the training set, one entry per channel, in the images' own units.

    Parameters
    ----------
    low, high
        Median over the images of the low and the high percentile of each.
    mean, std
        Mean and standard deviation of all pixels.
    smallest_range
        The smallest range (for ``percentile``) or standard deviation (for ``zscore``) that an image's own scaling may
        divide by, so that an empty field stays dark instead of becoming amplified noise.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    smallest_range: tuple[float, ...]

    @classmethod
    def identity(cls, channels: int) -> Self:
        """Return statistics of channels that need no scaling."""
        zero, one = (0.0,) * channels, (1.0,) * channels
        return cls(low=zero, high=one, mean=zero, std=one, smallest_range=zero)


def percentiles(values: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Return two percentiles, by linear interpolation between ranks as ``numpy.percentile`` defines it.

    Parameters
    ----------
    values
        Pixels of any shape. Integers of 8 and 16 bits are counted instead of sorted, which gives the same numbers
        several times faster.
    low, high
        Percentiles, 0 to 100.
    """
    values = values.reshape(-1)
    if values.dtype == bool:
        values = values.view(np.uint8)  # numpy cannot interpolate between truths
    if values.dtype.kind not in "ui" or values.dtype.itemsize > 2:
        lower, upper = np.percentile(values, (low, high))
        return float(lower), float(upper)
    counts, smallest = _histogram(values)
    ranks = np.cumsum(counts)
    places = np.array((low, high)) / 100.0 * (values.size - 1)
    below, above = np.floor(places), np.ceil(places)
    left = np.searchsorted(ranks, below, side="right")
    right = np.searchsorted(ranks, above, side="right")
    found = left + (right - left) * (places - below) + smallest
    return float(found[0]), float(found[1])


def _histogram(values: np.ndarray) -> tuple[np.ndarray, int]:
    if values.dtype.kind == "u":
        return np.bincount(values), 0
    smallest = int(np.iinfo(values.dtype).min)
    return np.bincount(values.astype(np.int32) - smallest), smallest


def fit_statistics(images: Iterable[np.ndarray], scaling: IntensityScaling) -> IntensityStatistics:
    """Measure a training set.

    Parameters
    ----------
    images
        Training images ``(C, spatial…)``, all with the same C; one is held at a time. Never validation or test
        images.
    scaling
        What the statistics are for.

    Returns
    -------
    IntensityStatistics
        ``smallest_range`` is half of the first percentile of the images' own ranges (those above zero).

    Raises
    ------
    DatasetError
        When there is no image.
    AxesError
        When the images differ in their number of channels.
    ImageError
        When an image holds NaN or infinity.
    """
    return combine_intensities([measure_intensities(image, scaling) for image in images])


class ImageIntensities(BaseModel, frozen=True, extra="forbid"):
    """What was measured on one image of a training set, one entry per channel.

    Parameters
    ----------
    low, high
        Percentiles.
    mean, std
        Of the pixels.
    spread
        The image's own range, or its standard deviation.
    pixels
        How many there are in a channel.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    spread: tuple[float, ...]
    pixels: int


def measure_intensities(image: np.ndarray, scaling: IntensityScaling) -> ImageIntensities:
    """Measure one training image ``(C, spatial…)``.

    Raises
    ------
    ImageError
        It holds NaN or infinity.
    """
    require_finite(image, "a training image")
    channels = image.reshape(image.shape[0], -1)
    bounds = [percentiles(channel, scaling.low, scaling.high) for channel in channels]
    std = _floats(channels.std(axis=1, dtype=np.float64))
    return ImageIntensities(
        low=tuple(low for low, _ in bounds),
        high=tuple(high for _, high in bounds),
        mean=_floats(channels.mean(axis=1, dtype=np.float64)),
        std=std,
        spread=tuple(high - low for low, high in bounds) if scaling.method == "percentile" else std,
        pixels=channels.shape[1],
    )


def combine_intensities(images: Sequence[ImageIntensities]) -> IntensityStatistics:
    """Return the statistics of a training set whose images were measured one by one, maybe elsewhere.

    Raises
    ------
    DatasetError, AxesError
        As :func:`fit_statistics` does.
    """
    if not images:
        raise DatasetError(
            "intensity statistics need at least one training image, got none",
            field="data",
            hint="check that the training split is not empty",
        )
    channels = {len(image.low) for image in images}
    if len(channels) > 1:
        raise AxesError(f"training images must agree on their channels, got {' and '.join(map(str, sorted(channels)))}")
    totals = []
    for image in images:
        mean, std = np.array(image.mean), np.array(image.std)
        count = float(image.pixels)
        totals.append(np.stack([np.full(len(mean), count), mean * count, (std**2 + mean**2) * count]))
    count_, total, squares = np.sum(totals, axis=0)
    mean = total / count_
    std = np.sqrt(np.maximum(squares / count_ - mean**2, 0.0))
    return IntensityStatistics(
        low=_floats(np.median([image.low for image in images], axis=0)),
        high=_floats(np.median([image.high for image in images], axis=0)),
        mean=_floats(mean),
        std=_floats(std),
        smallest_range=tuple(_smallest(channel) for channel in np.array([image.spread for image in images]).T),
    )


def _smallest(ranges: np.ndarray) -> float:
    positive = ranges[ranges > 0]
    return float(np.percentile(positive, 1.0) / 2.0) if positive.size else 0.0


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def intensity_map(
    sample: np.ndarray,
    scaling: IntensityScaling,
    statistics: IntensityStatistics | None,
    *,
    measured: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return what to subtract from an image and what to multiply it by.

    Parameters
    ----------
    sample
        The image or a sample of it, ``(C, …)``, finite. Not looked at when the scope is ``dataset``.
    scaling
        Method and scope.
    statistics
        Of the training set; may be ``None`` only when the scope is ``image``, and then no smallest range applies. Nor
        does it to images of real numbers.
    measured
        What :func:`measure_range` said of the image; then `sample` only tells its type and channels.

    Returns
    -------
    offset, scale : numpy.ndarray
        float32 of shape (C,); ``scaled = (pixels - offset) * scale``. A constant image scales to zero.

    Raises
    ------
    BundleError
        When the scope is ``dataset`` and there are no statistics.
    AxesError
        When image and statistics differ in their number of channels.
    """
    channels = sample.reshape(sample.shape[0], -1)
    if statistics is not None and len(statistics.low) != len(channels):
        raise AxesError(f"expected an image with {len(statistics.low)} channels, got {len(channels)}", field="channels")
    if scaling.scope == "dataset":
        if statistics is None:
            raise BundleError("intensity scaling of scope 'dataset' needs the statistics of the training set")
        bounds = (
            (np.array(statistics.low), np.array(statistics.high) - np.array(statistics.low))
            if scaling.method == "percentile"
            else (np.array(statistics.mean), np.array(statistics.std))
        )
    else:
        bounds = measure_range(sample, scaling) if measured is None else measured
    offset, spread = bounds
    # Real numbers come in any unit, often 0 to 1, where a range in the training images' units would leave nothing.
    known = statistics is not None and sample.dtype.kind != "f"
    floor = np.array(statistics.smallest_range) if known and statistics else np.zeros(len(channels))
    spread = np.maximum(spread, floor)
    scale = np.divide(1.0, spread, out=np.ones_like(spread), where=spread > 0)
    return offset.astype(np.float32), scale.astype(np.float32)


def measure_range(sample: np.ndarray, scaling: IntensityScaling) -> tuple[np.ndarray, np.ndarray]:
    """Return where the range of an image ``(C, …)`` begins and how wide it is, float64 (C,)."""
    channels = sample.reshape(sample.shape[0], -1)
    if scaling.method == "zscore":
        return channels.mean(axis=1, dtype=np.float64), channels.std(axis=1, dtype=np.float64)
    bounds = np.array([percentiles(channel, scaling.low, scaling.high) for channel in channels])
    spread = bounds[:, 1] - bounds[:, 0]
    for index in np.flatnonzero(spread <= 0):  # so few bright pixels that both percentiles are background
        spread[index] = float(channels[index].max()) - float(channels[index].min())
    return bounds[:, 0], spread


def sample_for_statistics(image: Image, *, at_most_pixels: int = 2**22) -> np.ndarray:
    """Read enough of an image to measure its intensities.

    Parameters
    ----------
    image
        Any image, possibly larger than memory.
    at_most_pixels
        Images up to this many pixels per channel are read whole; of larger ones, blocks of 256 × 256 (at least one)
        are read on a regular grid in up to eight planes, at a cost that does not grow with the image. No chance is
        involved.

    Returns
    -------
    numpy.ndarray
        (C, n) pixels of the image's own type.

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
        return _flatten(full.read(), image.source)
    count = max(1, min(_PLANES, frames * depth, at_most_pixels // _BLOCK**2))
    planes = np.unique(np.linspace(0, frames * depth - 1, count + 2)[1:-1].round().astype(int))
    per_side = max(1, int((at_most_pixels / len(planes)) ** 0.5) // _BLOCK)
    parts = [
        _flatten(
            full.read((_one(plane // depth), slice(None), _one(plane % depth), vertical, horizontal)),
            image.source,
        )
        for plane in planes
        for vertical in _blocks(rows, per_side)
        for horizontal in _blocks(columns, per_side)
    ]
    return np.concatenate(parts, axis=1)


def _flatten(pixels: np.ndarray, source: str) -> np.ndarray:
    require_finite(pixels, source)
    return np.moveaxis(pixels, 1, 0).reshape(pixels.shape[1], -1)


def _one(index: Any) -> slice:
    return slice(int(index), int(index) + 1)


def _blocks(length: int, count: int) -> list[slice]:
    """Blocks in the middle of `count` equal parts of an axis."""
    centres = [round((index + 0.5) * length / count) for index in range(count)]
    starts = sorted({min(max(centre - _BLOCK // 2, 0), max(length - _BLOCK, 0)) for centre in centres})
    return [slice(start, min(start + _BLOCK, length)) for start in starts]
