"""Resampling to another pixel size: intensities linearly, labels by the nearest pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cytoray_analysis.errors import AxesError
from cytoray_analysis.image_grid import ImageGrid
from cytoray_analysis.images.intensity import needs_float64

_TRUNCATE = 4.0  # standard deviations


def resample_image(array: np.ndarray, zoom: float | Sequence[float]) -> np.ndarray:
    """Resample intensities linearly, smoothing first along axes that shrink.

    Parameters
    ----------
    array
        Pixels ``(C, spatial…)`` of any real type.
    zoom
        Output over input pixels, one number for all spatial axes or one for each; above 0.

    Returns
    -------
    numpy.ndarray
        float32 ``(C, round(spatial * zoom)…)``, at least one pixel along each axis; float64 if float32 would not
        distinguish neighbouring values. Pixel edges, not centres, of the first and the last pixel coincide with those
        of the input.
    """
    spatial = array.shape[1:]
    factors = [float(zoom)] * len(spatial) if isinstance(zoom, int | float) else [float(factor) for factor in zoom]
    if len(factors) != len(spatial) or min(factors) <= 0:
        raise AxesError(f"expected one zoom above 0 for each of {len(spatial)} spatial axes, got {zoom}")
    return resample_image_to(
        array, [max(1, round(length * factor)) for length, factor in zip(spatial, factors, strict=True)]
    )


def resample_image_to(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resample intensities ``(C, spatial…)`` to a spatial shape, as :func:`resample_image` does."""
    spatial, shape = array.shape[1:], tuple(shape)
    pixels = as_float(array)
    return pixels if shape == spatial else ImageGrid(spatial, shape).resample(smooth(pixels, spatial, shape))


def float_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type of resampled intensities: float32, or float64 if float32 would merge neighbouring values."""
    return np.dtype(np.float64 if needs_float64(dtype) else np.float32)


def as_float(array: np.ndarray) -> np.ndarray:
    """Return pixels as :func:`float_type`."""
    return array.astype(float_type(array.dtype), copy=False)


def smooth(pixels: np.ndarray, before: Sequence[int], after: Sequence[int]) -> np.ndarray:
    """Smooth pixels (C, spatial…) along axes that will shrink, as scikit-image's ``resize`` does against aliasing."""
    for axis, sigma in enumerate(_sigmas(before, after), start=1):
        if sigma > 0:
            from scipy.ndimage import gaussian_filter1d

            pixels = gaussian_filter1d(pixels, sigma, axis, mode="nearest", truncate=_TRUNCATE)
    return pixels


def reach_of_smoothing(before: Sequence[int], after: Sequence[int]) -> tuple[int, ...]:
    """Return how far from a pixel :func:`smooth` reads, along each spatial axis."""
    return tuple(int(_TRUNCATE * sigma + 0.5) for sigma in _sigmas(before, after))


def _sigmas(before: Sequence[int], after: Sequence[int]) -> list[float]:
    return [max(0.0, (old / new - 1) / 2) for old, new in zip(before, after, strict=True)]


def resample_labels(labels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resample an integer label image to `shape` by the nearest pixel centre; no new labels are created.

    Parameters
    ----------
    labels
        Label image with as many axes as `shape` has entries.
    shape
        The wanted length of each axis, such as that of the image before it was resampled.

    Returns
    -------
    numpy.ndarray
        Labels of the same type.
    """
    if len(shape) != labels.ndim:
        raise AxesError(f"expected {labels.ndim} lengths for labels of shape {labels.shape}, got {tuple(shape)}")
    if tuple(shape) == labels.shape:
        return labels
    places = [
        ((np.arange(after) + 0.5) * before / after).astype(np.intp)
        for before, after in zip(labels.shape, shape, strict=True)
    ]
    return labels[np.ix_(*places)]
