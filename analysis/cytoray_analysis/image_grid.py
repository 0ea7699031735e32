"""Dense outputs at the pixels of the image, where the network saw the image at another pixel size.

Outputs are resampled before they are decoded: labels resampled afterwards would have outlines like stairs. Each pixel
depends on the nearest outputs alone, so a region gives the same values as the whole image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.tiles import Region, whole

Floats = TypeVar("Floats", np.float32, np.float64)


@dataclass(frozen=True)
class ImageGrid:
    """The pixels of an image beside those that its network saw; both cover the same rectangle or box.

    Attributes
    ----------
    seen
        Spatial shape of what the network saw.
    shape
        Spatial shape of the image.
    """

    seen: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def scale(self) -> tuple[float, ...]:
        """Pixels of the image per pixel that the network saw, along each axis."""
        return tuple(own / seen for own, seen in zip(self.shape, self.seen, strict=True))

    def needed(self, region: Region) -> Region:
        """Return the outputs that a region of the image depends on, as a region of what the network saw."""
        places = [self._places(axis, part) for axis, part in enumerate(region)]
        return tuple(slice(int(low[0]), int(high[-1]) + 1) for low, high, _ in places)

    def resample(self, outputs: NDArray[Floats], region: Region | None = None) -> NDArray[Floats]:
        """Interpolate outputs linearly.

        Parameters
        ----------
        outputs
            (K, spatial…) float32 or float64: all of them, or with a region those that :meth:`needed` returns for it.
        region
            Of the image; all of it by default.

        Returns
        -------
        ndarray
            (K, region…), of the same type.
        """
        given = whole(self.seen) if region is None else self.needed(region)
        for axis, (part, known) in enumerate(zip(region or whole(self.shape), given, strict=True)):
            low, high, weight = self._places(axis, part)
            column = weight.reshape(-1, *(1,) * (len(given) - 1 - axis)).astype(outputs.dtype, copy=False)
            before = np.take(outputs, low - known.start, axis=axis + 1)
            after = np.take(outputs, high - known.start, axis=axis + 1)
            outputs = before + (after - before) * column
        return outputs

    def _places(self, axis: int, part: slice) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
        """Return the outputs before and after each pixel along an axis, and the weight of the latter."""
        own, seen = self.shape[axis], self.seen[axis]
        centre = np.clip((np.arange(part.start, part.stop) + 0.5) * seen / own - 0.5, 0, seen - 1)
        low = np.floor(centre).astype(np.intp)
        return low, np.minimum(low + 1, seen - 1), centre - low
