"""The positions of cells in an image: boxes, given or measured from a label image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import RequestError
from cytoray_analysis.numbering import dense_numbers


@dataclass(frozen=True, eq=False)
class Cells:
    """Places in an image, one per cell.

    Attributes
    ----------
    boxes
        (N, 2, d) float64: start and stop along the spatial axes, in pixels.
    numbers
        (N,) int64: number of each, such as its number in a label image.
    """

    boxes: NDArray[np.float64]
    numbers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def centres(self) -> NDArray[np.float64]:
        """(N, d) middle of each box, in pixels."""
        middle: NDArray[np.float64] = self.boxes.mean(axis=1)
        return middle

    def scaled(self, zoom: Sequence[float]) -> Cells:
        """Return the same cells in an image that was resampled by a factor per axis."""
        return Cells(self.boxes * np.asarray(zoom, dtype=np.float64), self.numbers)


@dataclass(frozen=True, eq=False)
class CellValues:
    """The answer for the cells of an image.

    Attributes
    ----------
    values
        (N, K) of the N cells, as the task decodes them.
    cells
        Their positions.
    """

    values: NDArray[Any]
    cells: Cells

    def __len__(self) -> int:
        return len(self.values)


def cells_from_boxes(boxes: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Cells:
    """Return cells numbered from 1 in the order of their (starts, stops).

    Raises
    ------
    RequestError
        A box is empty or not finite.
    """
    array = np.asarray(boxes, dtype=np.float64)
    if array.size == 0:
        array = array.reshape(0, 2, 2)
    good = np.isfinite(array).all(axis=(1, 2)) & (array[:, 1] > array[:, 0]).all(axis=1)
    if not good.all():
        first = int(np.flatnonzero(~good)[0])
        raise RequestError(
            f"expected boxes that end after their start, got {array[first].tolist()} as number {first + 1}",
            field="boxes",
            hint="list the starts, then the stops, in pixels",
        )
    return Cells(array, np.arange(1, len(array) + 1))


def cells_from_labels(labels: NDArray[np.integer[Any]]) -> Cells:
    """Return the bounding box of every object of a label image, numbered as there; 0 is background."""
    from scipy.ndimage import find_objects

    dense, names = dense_numbers(labels)
    found = [(names[number], box) for number, box in enumerate(find_objects(dense), start=1) if box is not None]
    boxes = [[[part.start for part in box], [part.stop for part in box]] for _, box in found]
    array = np.asarray(boxes, dtype=np.float64).reshape(len(found), 2, labels.ndim)
    return Cells(array, np.array([number for number, _ in found], dtype=np.int64))


def whole_image(shape: Sequence[int]) -> Cells:
    """Return an image of one cell."""
    return Cells(np.array([[[0.0] * len(shape), list(shape)]], dtype=np.float64), np.ones(1, dtype=np.int64))


def window_around(centre: Sequence[float], size: Sequence[int]) -> tuple[slice, ...]:
    """Return the region of a given size around a place; it may begin or end outside the image."""
    starts = [round(middle - length / 2) for middle, length in zip(centre, size, strict=True)]
    return tuple(slice(start, start + length) for start, length in zip(starts, size, strict=True))


def read_window(source: Any, region: tuple[slice, ...]) -> NDArray[np.float32]:
    """Return scaled pixels of a region, (C, spatial…) float32; outside the image, its border is repeated.

    Parameters
    ----------
    source
        Anything with the spatial ``shape`` and ``read(region)``, such as a
        :class:`~cytoray_analysis.model_input.NetworkImage`.
    """
    inside, missing = [], [(0, 0)]
    for part, length in zip(region, source.shape, strict=True):
        start = min(max(part.start, 0), length - 1)
        stop = max(min(part.stop, length), start + 1)
        inside.append(slice(start, stop))
        before = min(max(start - part.start, 0), part.stop - part.start - 1)
        missing.append((before, max(part.stop - part.start - before - (stop - start), 0)))
    pixels: NDArray[np.float32] = source.read(tuple(inside))
    return np.pad(pixels, missing, mode="edge") if any(pair != (0, 0) for pair in missing) else pixels
