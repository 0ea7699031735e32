"""The objects of one frame, measured in two passes over its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.compiled import compiled
from cytoray_analysis.numbering import dense_numbers

_LARGEST_TABLE = 2**22


@dataclass(frozen=True, eq=False)
class Objects:
    """The n objects of a frame, in the order in which a scan of the frame meets them.

    Parameters
    ----------
    labels
        (n,) their numbers in the mask.
    numbers
        (Z, Y, X) int32 mask in which they are numbered 1 to n; of images Z is 1.
    size
        (n,) pixels.
    centroid
        (n, d) float64, in pixels.
    box
        (n, 2, d) first pixel and one past the last.
    place
        (n, d) float64 centroid in isotropic units: pixels along X.
    radius
        (n,) float64 radius of a ball of the same volume, in the same units.
    elongation
        (n,) float64 length over width of the ellipse with the same second moments, at least 1.
    direction
        (n, d) float64 unit vector along the length.
    mean, deviation
        (n,) float64 mean and standard deviation of the scaled intensity inside.
    around
        (n,) float64 mean scaled intensity in a box around the centroid, mask or not.
    border
        (n,) float64 distance from the box to the edge of the frame, isotropic units.
    """

    labels: NDArray[np.int64]
    numbers: NDArray[np.int32]
    size: NDArray[np.float64]
    centroid: NDArray[np.float64]
    box: NDArray[np.int64]
    place: NDArray[np.float64]
    radius: NDArray[np.float64]
    elongation: NDArray[np.float64]
    direction: NDArray[np.float64]
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    around: NDArray[np.float64]
    border: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.labels)


def measure(
    mask: NDArray[Any],
    image: NDArray[Any] | None = None,
    *,
    offset: float = 0.0,
    scale: float = 1.0,
    spacing: Sequence[float] | None = None,
) -> Objects:
    """Measure the objects of a frame.

    Parameters
    ----------
    mask
        Non-negative integers (Y, X) or (Z, Y, X), 0 for background.
    image
        Intensities of the same shape; zeros when left out.
    offset, scale
        ``scaled = (image - offset) * scale``.
    spacing
        Length of a pixel along each axis relative to X; ones when left out.

    Returns
    -------
    Objects
        Independent of the numbers that the mask gives them.
    """
    axes = mask.ndim
    deep = np.ascontiguousarray(mask).reshape((1,) * (3 - axes) + mask.shape)
    labels, numbers = _numbered(deep)
    count = len(labels)
    # One type of pixels, so that one compiled function serves all movies.
    pixels = np.zeros((1, 1, 1)) if image is None else np.ascontiguousarray(image).reshape(deep.shape)
    pixels = pixels.astype(np.float32, copy=False)
    lengths = np.ones(3)
    lengths[3 - axes :] = 1.0 if spacing is None else spacing
    sums, box = _sums(numbers, pixels, count, offset, scale, lengths)
    size = np.maximum(sums[:, 0], 1.0)
    centre = sums[:, 1:4] / size[:, None]
    moments = np.empty((count, 3, 3))
    for place, (row, column) in enumerate(((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))):
        value = sums[:, 4 + place] / size - centre[:, row] * centre[:, column] * lengths[row] * lengths[column]
        moments[:, row, column] = moments[:, column, row] = value
    moments = moments[:, 3 - axes :, 3 - axes :]
    moments += np.diag(lengths[3 - axes :] ** 2 / 12)  # a pixel has an extent of its own
    values, vectors = np.linalg.eigh(moments)
    width = values[:, :-1].mean(axis=1).clip(min=1e-6)
    mean = sums[:, 10] / size
    variance = (sums[:, 11] / size - mean**2).clip(min=0.0)
    volume = size * np.prod(lengths[3 - axes :])
    radius = np.sqrt(volume / np.pi) if axes == 2 else np.cbrt(volume * 0.75 / np.pi)
    reach = np.median(radius) * 1.5 if count else 1.0
    around = _around(pixels, centre, np.maximum(np.round(reach / lengths), 0.0), offset, scale) if count else mean
    shape = np.array(deep.shape)
    edge = np.minimum(box[:, 0], shape - box[:, 1])[:, 3 - axes :] * lengths[3 - axes :]
    if axes == 3:
        edge = edge[:, 1:]  # volumes are often as thin as their cells: what counts is the way out at the sides
    return Objects(
        labels=labels,
        numbers=numbers,
        size=sums[:, 0],
        centroid=centre[:, 3 - axes :],
        box=box[:, :, 3 - axes :],
        place=centre[:, 3 - axes :] * lengths[3 - axes :],
        radius=radius,
        elongation=np.sqrt(values[:, -1] / width).clip(min=1.0),
        direction=vectors[:, :, -1],
        mean=mean,
        deviation=np.sqrt(variance),
        around=around,
        border=edge.min(axis=1).astype(np.float64) if count else np.zeros(0),
    )


def shared_pixels(
    first: Objects, second: Objects, source: NDArray[np.int64], target: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Count the pixels that objects of two frames share.

    Parameters
    ----------
    first, second
        Objects of frames of one shape.
    source, target
        (N,) indices of pairs of objects, in order of `source`.

    Returns
    -------
    numpy.ndarray
        (N,) pixels in common of each pair.
    """
    starts = np.searchsorted(source, np.arange(len(first) + 1))
    box = np.zeros((len(first), 2, 3), np.int64)
    box[:, 1] = 1
    box[:, :, 3 - first.box.shape[2] :] = first.box
    shared: NDArray[np.int64] = _shared(first.numbers, second.numbers, box, starts, target)
    return shared


def _numbered(mask: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Give objects numbers in the order in which a scan meets them."""
    largest = int(mask.max(initial=0))
    if largest >= _LARGEST_TABLE:
        mask, names = dense_numbers(mask)
        labels, numbers = _scan(mask.astype(np.int32), int(mask.max(initial=0)))
        return names[labels], numbers
    found: tuple[NDArray[np.int64], NDArray[np.int32]] = _scan(mask.astype(np.int32, copy=False), largest)
    return found


@compiled
def _scan(mask, largest):  # type: ignore[no-untyped-def]
    depth, height, width = mask.shape
    number = np.zeros(largest + 1, np.int32)
    numbers = np.zeros((depth, height, width), np.int32)
    labels = np.empty(largest, np.int64)
    count = 0
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                label = mask[z, y, x]
                if label == 0:
                    continue
                if number[label] == 0:
                    labels[count] = label
                    count += 1
                    number[label] = count
                numbers[z, y, x] = number[label]
    return labels[:count].copy(), numbers


@compiled
def _sums(numbers, pixels, count, offset, scale, lengths):  # type: ignore[no-untyped-def]
    """Sum per object: 1, z, y, x, their products in isotropic units, intensity and its square; and find boxes."""
    depth, height, width = numbers.shape
    sums = np.zeros((count, 12))
    box = np.zeros((count, 2, 3), np.int64)
    lit = pixels.size > 1
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                index = numbers[z, y, x] - 1
                if index < 0:
                    continue
                own, limits = sums[index], box[index]
                if own[0] == 0:
                    limits[0, 0], limits[0, 1], limits[0, 2] = z, y, x
                    limits[1, 0], limits[1, 1], limits[1, 2] = z + 1, y + 1, x + 1
                else:
                    limits[1, 0] = z + 1  # the scan only goes down
                    limits[0, 1] = min(limits[0, 1], y)
                    limits[1, 1] = max(limits[1, 1], y + 1)
                    limits[0, 2] = min(limits[0, 2], x)
                    limits[1, 2] = max(limits[1, 2], x + 1)
                a, b, c = z * lengths[0], y * lengths[1], x * lengths[2]
                own[0] += 1
                own[1] += z
                own[2] += y
                own[3] += x
                own[4] += a * a
                own[5] += b * b
                own[6] += c * c
                own[7] += a * b
                own[8] += a * c
                own[9] += b * c
                if lit:
                    value = (pixels[z, y, x] - offset) * scale
                    own[10] += value
                    own[11] += value * value
    return sums, box


@compiled
def _around(pixels, centre, reach, offset, scale):  # type: ignore[no-untyped-def]
    depth, height, width = pixels.shape
    means = np.zeros(len(centre))
    if pixels.size == 1:
        return means
    for index in range(len(centre)):
        z, y, x = round(centre[index, 0]), round(centre[index, 1]), round(centre[index, 2])
        total, seen = 0.0, 0
        for a in range(max(z - int(reach[0]), 0), min(z + int(reach[0]) + 1, depth)):
            for b in range(max(y - int(reach[1]), 0), min(y + int(reach[1]) + 1, height)):
                for c in range(max(x - int(reach[2]), 0), min(x + int(reach[2]) + 1, width)):
                    total += (pixels[a, b, c] - offset) * scale
                    seen += 1
        means[index] = total / max(seen, 1)
    return means


@compiled
def _shared(first, second, box, starts, target):  # type: ignore[no-untyped-def]
    shared = np.zeros(len(target), np.int64)
    for index in range(len(box)):
        lower, upper = starts[index], starts[index + 1]
        if lower == upper:
            continue
        for z in range(box[index, 0, 0], box[index, 1, 0]):
            for y in range(box[index, 0, 1], box[index, 1, 1]):
                for x in range(box[index, 0, 2], box[index, 1, 2]):
                    if first[z, y, x] != index + 1:
                        continue
                    other = second[z, y, x] - 1
                    if other < 0:
                        continue
                    for place in range(lower, upper):
                        if target[place] == other:
                            shared[place] += 1
                            break
    return shared
