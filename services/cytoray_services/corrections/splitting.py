"""Division of an object along a line that a person draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import RequestError

MOST_PARTS = 64
MOST_WORK = 2**26
"""Pixels of the boxes around the pieces of a line."""

# Neighbours in a plane: right, down, down to the right, down to the left.
_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))
# Lines are moved by this much, in pixels, so that they pass through no centre of a pixel.
_ASIDE = (1.2345e-7, 2.7183e-7)


def divided(
    inside: NDArray[np.bool_], line: Sequence[tuple[float, float]], origin: tuple[int, int]
) -> list[NDArray[np.bool_]]:
    """Return the parts that a line cuts off an object, without the largest part of each piece.

    Two neighbouring pixels (8 in a plane, and the one above and below) are connected if the line between their centres
    does not cross the drawn one. Every pixel belongs to one part, so none is lost along the cut.

    Parameters
    ----------
    inside
        (Z, Y, X) the pixels of the object.
    line
        Points ``(x, y)``, at least two; all planes are cut at the same place.
    origin
        Row and column of the first pixel of `inside`.

    Returns
    -------
    list of numpy.ndarray
        (Z, Y, X) bool each, the largest first; empty if the line does not divide anything.

    Raises
    ------
    RequestError
        The line cuts off too many parts, or its pieces are too long.
    """
    number = np.full(inside.shape, -1, np.int64)
    number[inside] = np.arange(np.count_nonzero(inside))
    whole = _components(number, np.zeros((len(_STEPS), *inside.shape[1:]), np.bool_))
    parts = _components(number, _crossed(line, origin, inside.shape[1:]))
    sizes = np.bincount(parts)
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] > 0]
    piece_of = np.zeros(len(sizes), np.int64)
    piece_of[parts] = whole
    _, largest = np.unique(piece_of[order], return_index=True)
    cut_off = np.delete(order, largest)
    if len(cut_off) > MOST_PARTS:
        raise RequestError(
            f"expected a line that cuts off at most {MOST_PARTS} parts, got {len(cut_off)}",
            field="line",
            hint="divide the object with several lines",
        )
    found = []
    for part in cut_off:
        mask = np.zeros(inside.shape, np.bool_)
        mask[inside] = parts == part
        found.append(mask)
    return found


def _crossed(line: Sequence[tuple[float, float]], origin: tuple[int, int], shape: Sequence[int]) -> NDArray[np.bool_]:
    """Return for each kind of neighbour, (kinds, Y, X), whether the line separates a pixel from it."""
    rows, columns = shape
    crossed = np.zeros((len(_STEPS), rows, columns), np.bool_)
    points = np.asarray(line, np.float64) - (origin[1] + 0.5, origin[0] + 0.5) + _ASIDE
    spans = np.minimum(np.abs(np.diff(points, axis=0)) + 3, (columns, rows))
    if (spans[:, 0] * spans[:, 1]).sum() > MOST_WORK:
        raise RequestError(
            "expected a line with shorter pieces for an object of this size",
            field="line",
            hint="draw it with fewer turns",
        )
    for (x0, y0), (x1, y1) in pairwise(points.tolist()):
        top, left = (max(math.floor(min(pair)) - 1, 0) for pair in ((y0, y1), (x0, x1)))
        bottom = min(math.ceil(max(y0, y1)) + 2, rows)
        right = min(math.ceil(max(x0, x1)) + 2, columns)
        if bottom <= top or right <= left:
            continue
        y, x = np.arange(top, bottom)[:, None], np.arange(left, right)[None]
        for kind, (down, across) in enumerate(_STEPS):
            apart = _side(x0, y0, x1, y1, x, y) != _side(x0, y0, x1, y1, x + across, y + down)
            # The ends of the drawn piece lie on two sides of the line through both pixels.
            between = _side(x, y, x + across, y + down, x0, y0) != _side(x, y, x + across, y + down, x1, y1)
            crossed[kind, top:bottom, left:right] ^= apart & between
    return crossed


def _side(x0: object, y0: object, x1: object, y1: object, x: object, y: object) -> NDArray[np.bool_]:
    """Return on which side of the line from (x0, y0) to (x1, y1) points lie."""
    a, b, c, d, e, f = (np.asarray(value, np.float64) for value in (x0, y0, x1, y1, x, y))
    side: NDArray[np.bool_] = (c - a) * (f - b) - (d - b) * (e - a) > 0
    return side


def _components(number: NDArray[np.int64], crossed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return for each pixel of an object, by its number, the smallest number of the pixels connected with it."""
    edges = []
    for kind, (down, across) in enumerate(_STEPS):
        rows, columns = number.shape[1:]
        near = (slice(0, rows - down), slice(max(-across, 0), columns - max(across, 0)))
        far = (slice(down, rows), slice(max(across, 0), columns - max(-across, 0)))
        one, other = number[:, near[0], near[1]], number[:, far[0], far[1]]
        joined = (one >= 0) & (other >= 0) & ~crossed[kind][near]
        edges.append(np.stack((one[joined], other[joined])))
    above, below = number[:-1], number[1:]
    joined = (above >= 0) & (below >= 0)
    edges.append(np.stack((above[joined], below[joined])))
    one, other = np.concatenate(edges, axis=1)
    root = np.arange(int(number.max(initial=-1)) + 1)
    while True:
        first, second = root[one], root[other]
        differ = first != second
        if not differ.any():
            return root
        one, other, first, second = one[differ], other[differ], first[differ], second[differ]
        # Hook the larger root to the smaller one, then let every pixel point to its root.
        np.minimum.at(root, np.maximum(first, second), np.minimum(first, second))
        while not (root[root] == root).all():
            root = root[root]
