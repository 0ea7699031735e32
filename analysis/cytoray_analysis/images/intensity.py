"""Intensity scaling: every image, bright or dim, 8 or 16 bit, has the same range for the network.

``scaled = (pixels - offset) * scale`` per channel. The *scope* defines what offset and scale are measured on: the image
itself, or the training set. Percentile scaling as in Weigert et al., Nat Methods 15, 1090 (2018).

With the scope ``image`` the unit does not matter: copies of one picture at 8 bits, at 16 and as real numbers are scaled
to the same values. Constant images and pure camera noise become 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, Field, model_validator

from cytoray_analysis.errors import AxesError, BundleError, DatasetError, ImageError
from cytoray_analysis.images.image import require_finite
from cytoray_analysis.images.noise import only_noise

_BLUR = 1.0  # pixels, before a threshold is chosen
_LARGEST = 1e6  # larger scaled values are clipped: one wrong floating-point pixel must not become infinite


class IntensityScaling(BaseModel, frozen=True, extra="forbid"):
    """How intensities are scaled.

    Parameters
    ----------
    method
        ``percentile`` maps the `low` percentile to 0 and the `high` one to 1; ``zscore`` maps the mean to 0 and one
        standard deviation to 1; ``otsu`` maps Otsu's threshold to 0 and the difference of the means above and below it
        to 1 (IEEE Trans. Syst. Man Cybern. 9, 62, 1979), for each image separately.
    scope
        ``image`` measures each image separately; ``dataset`` uses the statistics of the training set, for stains with a
        meaningful absolute brightness.
    low, high
        Percentiles, 0 to 100.
    """

    method: Literal["percentile", "zscore", "otsu"] = "percentile"
    scope: Literal["image", "dataset"] = "image"
    low: float = Field(default=1.0, ge=0.0, lt=100.0)
    high: float = Field(default=99.8, gt=0.0, le=100.0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"expected low below high, got low={self.low} and high={self.high}")
        if self.method == "otsu" and self.scope == "dataset":
            raise ValueError("expected the scope image for the method otsu, got dataset")
        return self


class IntensityStatistics(BaseModel, frozen=True, extra="forbid"):
    """Statistics of the training set, one entry per channel, in the images' own units.

    Parameters
    ----------
    low, high
        Median over the images of the low and the high percentile of each.
    mean, std
        Mean and standard deviation of all pixels.
    smallest_range
        Half of the first percentile of the images' own ranges (for ``percentile``) or standard deviations (for
        ``zscore``): a description of the training set. Scaling does not use it, because an image in another unit
        would vanish; see :func:`cytoray_analysis.images.noise.only_noise`.
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

    @property
    def is_identity(self) -> bool:
        """Whether they leave pixels unchanged."""
        return self == self.identity(len(self.low))


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
    if values.dtype == np.float16:
        values = values.astype(np.float32)  # differences of half floats overflow
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
        Training images ``(C, spatial…)``, all with the same C; one is in memory at a time. Never validation or test
        images.
    scaling
        The scaling method.

    Returns
    -------
    IntensityStatistics
        ``smallest_range`` counts ranges above zero.

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
    """Statistics of one image of a training set, one entry per channel.

    Parameters
    ----------
    low, high
        Percentiles.
    mean, std
        Of the pixels.
    spread
        The image's own range, or its standard deviation.
    pixels
        Number of pixels in a channel.
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
    """Return the statistics of a training set from the statistics of its images.

    Raises
    ------
    DatasetError, AxesError
        As :func:`fit_statistics` does.
    """
    if not images:
        raise DatasetError(
            "expected at least one training image for intensity statistics, found none",
            field="data",
            hint="check that the training split is not empty",
        )
    channels = {len(image.low) for image in images}
    if len(channels) > 1:
        raise AxesError(
            f"expected training images with the same channels, got {' and '.join(map(str, sorted(channels)))}"
        )
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
    """Return the offset and the scale of an image.

    Parameters
    ----------
    sample
        The image or a sample of it, ``(C, …, Y, X)``, finite. Ignored if the scope is ``dataset``.
    scaling
        Method and scope.
    statistics
        Of the training set; may be ``None`` when the scope is ``image``, which does not use them.
    measured
        The result of :func:`measure_range` for the image; `sample` then only defines its channels.

    Returns
    -------
    offset, scale : numpy.ndarray
        float64 of shape (C,), for :func:`scale_intensities`. A constant image and one of pure noise scale to zero.

    Raises
    ------
    BundleError
        When the scope is ``dataset`` and there are no statistics.
    AxesError
        When image and statistics differ in their number of channels.
    ImageError
        See :func:`measure_range`.
    """
    if statistics is not None and len(statistics.low) != len(sample):
        raise AxesError(f"expected an image with {len(statistics.low)} channels, got {len(sample)}", field="channels")
    if scaling.scope == "image":
        offset, spread = measure_range(sample, scaling) if measured is None else measured
        return offset, np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    offset, spread = _training_range(scaling, statistics)
    return offset, np.divide(1.0, spread, out=np.ones_like(spread), where=spread > 0)


def _training_range(scaling: IntensityScaling, statistics: IntensityStatistics | None) -> tuple[np.ndarray, np.ndarray]:
    if statistics is None:
        raise BundleError(
            "expected the statistics of the training set for intensity scaling of scope 'dataset', found none"
        )
    if scaling.method == "zscore":
        return np.array(statistics.mean), np.array(statistics.std)
    return np.array(statistics.low), np.array(statistics.high) - np.array(statistics.low)


def scale_intensities(pixels: np.ndarray, offset: ArrayLike, scale: ArrayLike) -> NDArray[np.float32]:
    """Return ``(pixels - offset) * scale`` as float32.

    Parameters
    ----------
    pixels
        ``(C, spatial…)`` of any type, finite. Integers of 32 and 64 bits and float64 are subtracted in float64: float32
        does not distinguish neighbouring values near 2³².
    offset, scale
        The result of :func:`intensity_map`.
    """
    column = (-1,) + (1,) * (pixels.ndim - 1)
    begin, factor = (np.asarray(values, np.float64).reshape(column) for values in (offset, scale))
    if needs_float64(pixels.dtype) or not (_fits_float32(begin) and _fits_float32(factor)):
        values = pixels.astype(np.float64) - begin
        values *= factor
        return values.clip(-_LARGEST, _LARGEST).astype(np.float32)
    with np.errstate(over="ignore"):
        scaled: NDArray[np.float32] = pixels.astype(np.float32) - begin.astype(np.float32)
        scaled *= factor.astype(np.float32)
    return scaled if pixels.dtype.kind != "f" else np.clip(scaled, -_LARGEST, _LARGEST, out=scaled)


def needs_float64(dtype: np.dtype[Any]) -> bool:
    """Whether float32 cannot represent all values of a type."""
    return dtype.itemsize > 4 or (dtype.itemsize == 4 and dtype.kind in "ui")


def _fits_float32(values: np.ndarray) -> bool:
    return not (np.abs(values) > 1e30).any()


def measure_range(sample: np.ndarray, scaling: IntensityScaling) -> tuple[np.ndarray, np.ndarray]:
    """Return the start and the width of the range of an image, float64 (C,).

    Parameters
    ----------
    sample
        ``(C, …, Y, X)``; ``(C, n)``, pixels without positions, is never treated as noise.

    Returns
    -------
    begin, spread
        The spread is 0 if a channel is constant or pure noise.

    Raises
    ------
    ImageError
        The range of the intensities overflows.
    """
    channels = sample.reshape(sample.shape[0], -1)
    with np.errstate(over="ignore"):
        if scaling.method == "zscore":
            begin, spread = channels.mean(axis=1, dtype=np.float64), channels.std(axis=1, dtype=np.float64)
        else:
            bounds = np.array([percentiles(channel, scaling.low, scaling.high) for channel in channels])
            begin, spread = bounds[:, 0], bounds[:, 1] - bounds[:, 0]
    for index in np.flatnonzero(spread <= 0):  # there are so few bright pixels that both percentiles are background
        spread[index] = float(channels[index].max()) - float(channels[index].min())
    if not (np.isfinite(begin) & np.isfinite(spread)).all():
        raise ImageError(
            f"expected intensities within the range of real numbers, got {float(sample.min()):g} to "
            f"{float(sample.max()):g}",
            hint="rescale the image, or replace values that mark missing pixels",
        )
    if sample.ndim > 2:
        for index in np.flatnonzero(spread > 0):
            if only_noise(sample[index].reshape(-1, *sample.shape[-2:]), spread[index]):
                spread[index] = 0.0
    spread[spread < 1e-300] = 0.0  # its inverse would be infinite
    if scaling.method == "otsu":
        for index in np.flatnonzero(spread > 0):
            begin[index], spread[index] = _otsu(sample[index])
    return begin, spread


def _otsu(pixels: np.ndarray) -> tuple[float, float]:
    """Return Otsu's threshold of slightly blurred planes, and the difference of the means on its sides."""
    from scipy.ndimage import gaussian_filter
    from skimage.filters import threshold_otsu

    sigma = (0.0,) * (pixels.ndim - 2) + (_BLUR, _BLUR) if pixels.ndim > 1 else 0.0
    smooth = gaussian_filter(pixels.astype(np.float64), sigma)
    threshold = float(threshold_otsu(smooth))  # type: ignore[no-untyped-call]
    above = smooth > threshold
    if not above.any():
        return threshold, 0.0
    return threshold, float(smooth[above].mean() - smooth[~above].mean())


def range_ratio(spread: np.ndarray, scaling: IntensityScaling, statistics: IntensityStatistics) -> float:
    """Return the ratio of an image's range to that of the training images; below 1 if narrower.

    Parameters
    ----------
    spread
        Range of each channel, (C,); a repeated channel counts for all.

    Returns
    -------
    float
        Of the channel that differs most; 0 if a channel has no range.
    """
    _, trained = _training_range(scaling, statistics)
    known = trained > 0
    ratios = np.broadcast_to(spread, trained.shape)[known] / trained[known]
    return float(max(ratios, key=lambda ratio: max(ratio, 1.0 / ratio if ratio > 0 else np.inf), default=1.0))
