"""The pixels of an image at another size, read region by region: an image larger than memory can be resampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.image_grid import ImageGrid
from cytoray_analysis.images import Image
from cytoray_analysis.images.resample import as_float, float_type, reach_of_smoothing, smooth
from cytoray_analysis.tiles import within


@dataclass(frozen=True, eq=False)
class ResampledPixels:
    """The result of :func:`~cytoray_analysis.images.resample.resample_image_to`, of which only a region is computed.

    Attributes
    ----------
    image
        Axes C and the spatial axes.
    size
        The spatial shape that it is resampled to.
    """

    image: Image
    size: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, spatial…)."""
        return (self.image.shape[0], *self.size)

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32, or float64 as :func:`~cytoray_analysis.images.resample.resample_image` says."""
        return float_type(self.image.dtype)

    def __getitem__(self, region: tuple[slice, ...]) -> NDArray[Any]:
        """Resample a region, one slice of step 1 per axis."""
        channels, *parts = region
        wanted = tuple(slice(*part.indices(length)[:2]) for part, length in zip(parts, self.size, strict=True))
        own = self.image.spatial_shape
        grid = ImageGrid(own, self.size)
        needed = grid.needed(wanted)
        outer = tuple(
            slice(max(part.start - reach, 0), min(part.stop + reach, length))
            for part, reach, length in zip(needed, reach_of_smoothing(own, self.size), own, strict=True)
        )
        pixels = smooth(as_float(self.image.read((channels, *outer))), own, self.size)
        return grid.resample(pixels[(slice(None), *within(needed, outer))], wanted)
