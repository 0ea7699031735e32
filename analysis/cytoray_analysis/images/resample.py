"""Resampling to another pixel size: intensities linearly, labels by the nearest pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cytoray_analysis.errors import AxesError
from cytoray_analysis.images.intensity import needs_float64


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
    pixels = array.astype(np.float64 if needs_float64(array.dtype) else np.float32, copy=False)
    if shape == spatial:
        return pixels
    from skimage.transform import resize

    smooth = any(after < before for after, before in zip(shape, spatial, strict=True))
    channels = [
        resize(channel, shape, order=1, mode="edge", preserve_range=True, anti_aliasing=smooth)  # type: ignore[no-untyped-call]
        for channel in pixels
    ]
    return np.stack(channels).astype(pixels.dtype, copy=False)


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
