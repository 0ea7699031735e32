"""Objects of one piece without holes.

An object keeps its largest piece, connected along axes; its other pieces become background. Then background that is
connected along axes to no place outside the object becomes part of it. An object's pixels alone decide its pieces and
holes, so that blocks of an image give what the whole image gives.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.compiled import compiled


def make_whole(labels: NDArray[np.int32], count: int, *, flat: bool) -> None:
    """Change labels so that their objects have one piece and no holes.

    Parameters
    ----------
    labels
        (Z, Y, X) int32, 1 to `count`, 0 for background; changed in place.
    count
        Number of objects.
    flat
        Whether it is one plane, whose upper and lower sides are no way out of an object.
    """
    # Sorted by NumPy: numba would compile its sorting for seconds.
    low, high = _boxes(labels, count)
    _keep_largest_pieces(labels, low, high)
    low, high = _boxes(labels, count)
    order = np.argsort((high - low + 1).prod(axis=1), kind="stable")  # an enclosed object first
    _fill_all_holes(labels, order, low, high, flat)


def _boxes(labels: NDArray[np.int32], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and last position of each object along each axis; (count + 1, 3), high −1 for none."""
    low, high = np.full((count + 1, 3), 2**31 - 1, np.int64), np.full((count + 1, 3), -1, np.int64)
    _measure_boxes(labels, low, high)
    return low, high


@compiled
def _measure_boxes(labels: Any, low: Any, high: Any) -> None:
    depth, height, width = labels.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                label = labels[z, y, x]
                if label > 0:
                    low[label, 0], high[label, 0] = min(low[label, 0], z), max(high[label, 0], z)
                    low[label, 1], high[label, 1] = min(low[label, 1], y), max(high[label, 1], y)
                    low[label, 2], high[label, 2] = min(low[label, 2], x), max(high[label, 2], x)


@compiled
def _keep_largest_piece(labels: Any, label: Any, low: Any, high: Any) -> None:
    depth, height, width = high[0] - low[0] + 1, high[1] - low[1] + 1, high[2] - low[2] + 1
    piece = np.zeros((depth, height, width), np.int32)
    stack = np.empty((depth * height * width, 3), np.int32)
    pieces, largest, most = 0, 0, 0
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if piece[z, y, x] > 0 or labels[low[0] + z, low[1] + y, low[2] + x] != label:
                    continue
                pieces += 1
                piece[z, y, x] = pieces
                stack[0, 0], stack[0, 1], stack[0, 2] = z, y, x
                left, size = 1, 0
                while left > 0:
                    left -= 1
                    size += 1
                    c, b, a = stack[left, 0], stack[left, 1], stack[left, 2]
                    for side in range(6):
                        w = c + (side == 0) - (side == 1)
                        v = b + (side == 2) - (side == 3)
                        u = a + (side == 4) - (side == 5)
                        if w < 0 or v < 0 or u < 0 or w >= depth or v >= height or u >= width:
                            continue
                        if piece[w, v, u] == 0 and labels[low[0] + w, low[1] + v, low[2] + u] == label:
                            piece[w, v, u] = pieces
                            stack[left, 0], stack[left, 1], stack[left, 2] = w, v, u
                            left += 1
                if size > most:  # the first of equals, by position
                    largest, most = pieces, size
    if pieces < 2:
        return
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if piece[z, y, x] > 0 and piece[z, y, x] != largest:
                    labels[low[0] + z, low[1] + y, low[2] + x] = 0


@compiled
def _fill_holes(labels: Any, label: Any, low: Any, high: Any, flat: Any) -> None:
    """Follow the outside of the object along axes, from a border of one pixel around its box."""
    rim = 0 if flat else 1
    depth, height, width = high[0] - low[0] + 1 + 2 * rim, high[1] - low[1] + 3, high[2] - low[2] + 3
    outside = np.zeros((depth, height, width), np.bool_)
    stack = np.empty((depth * height * width, 3), np.int32)
    stack[0, 0], stack[0, 1], stack[0, 2] = 0, 0, 0
    outside[0, 0, 0] = True
    left = 1
    while left > 0:
        left -= 1
        c, b, a = stack[left, 0], stack[left, 1], stack[left, 2]
        for side in range(6):
            w, v, u = c + (side == 0) - (side == 1), b + (side == 2) - (side == 3), a + (side == 4) - (side == 5)
            if w < 0 or v < 0 or u < 0 or w >= depth or v >= height or u >= width or outside[w, v, u]:
                continue
            inner = rim <= w < depth - rim and 1 <= v < height - 1 and 1 <= u < width - 1
            if inner and labels[low[0] + w - rim, low[1] + v - 1, low[2] + u - 1] == label:
                continue
            outside[w, v, u] = True
            stack[left, 0], stack[left, 1], stack[left, 2] = w, v, u
            left += 1
    for w in range(rim, depth - rim):
        for v in range(1, height - 1):
            for u in range(1, width - 1):
                if not outside[w, v, u] and labels[low[0] + w - rim, low[1] + v - 1, low[2] + u - 1] == 0:
                    labels[low[0] + w - rim, low[1] + v - 1, low[2] + u - 1] = label


@compiled
def _keep_largest_pieces(labels: Any, low: Any, high: Any) -> None:
    for label in range(1, len(low)):
        if high[label, 0] >= 0:
            _keep_largest_piece(labels, label, low[label], high[label])


@compiled
def _fill_all_holes(labels: Any, order: Any, low: Any, high: Any, flat: Any) -> None:
    for label in order:
        if label > 0 and high[label, 0] >= 0:
            _fill_holes(labels, label, low[label], high[label], flat)
