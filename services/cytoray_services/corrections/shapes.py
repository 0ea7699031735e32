"""Shapes that a person draws, as pixels of a plane."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import RequestError

Points = Sequence[tuple[float, float]]
_MOST_WORK = 2**25  # pixels that the pieces of a stroke are compared with; takes seconds


@dataclass(frozen=True, eq=False)
class Patch:
    """Some pixels of a plane: a rectangle, and which of its pixels they are.

    Attributes
    ----------
    top, left
        First row and column of the rectangle.
    inside
        (rows, columns) bool.
    """

    top: int
    left: int
    inside: NDArray[np.bool_]

    @property
    def place(self) -> tuple[slice, slice]:
        """The rectangle in the plane."""
        rows, columns = self.inside.shape
        return slice(self.top, self.top + rows), slice(self.left, self.left + columns)


def inside_outline(outline: Points, shape: tuple[int, int]) -> Patch:
    """Return the pixels whose centres lie inside a polygon, by the even-odd rule.

    Parameters
    ----------
    outline
        Corners ``(x, y)``; the last is connected to the first.
    shape
        Rows and columns of the plane; pixels outside of it are omitted.
    """
    corners = np.asarray(outline, np.float64)
    top, left, rows, columns = _window(corners, 0.0, shape)
    flips = np.zeros((rows, columns + 1), np.int32)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        low, high = min(y0, y1), max(y0, y1)
        first = max(math.ceil(low - 0.5), top)
        last = min(math.ceil(high - 0.5), top + rows)
        crossed = np.arange(first, last)
        at = x0 + (crossed + 0.5 - y0) * (x1 - x0) / (y1 - y0)
        column = np.clip(np.ceil(at - 0.5) - left, 0, columns).astype(np.int64)
        np.add.at(flips, (crossed - top, column), 1)
    return Patch(top, left, np.cumsum(flips, axis=1)[:, :-1] % 2 == 1)


def under_brush(stroke: Points, radius: float, shape: tuple[int, int]) -> Patch:
    """Return the pixels whose centres a round brush covers, and those that contain a point of its way.

    Parameters
    ----------
    stroke
        Points ``(x, y)`` of the way of the brush.
    radius
        In pixels.
    shape
        Rows and columns of the plane; pixels outside of it are omitted.

    Raises
    ------
    RequestError
        The stroke is too long for its radius.
    """
    points = np.asarray(stroke, np.float64)
    top, left, rows, columns = _window(points, radius, shape)
    inside = np.zeros((rows, columns), np.bool_)
    pieces = list(pairwise(points)) if len(points) > 1 else [(points[0], points[0])]
    windows = [_window(np.stack(piece), radius, shape) for piece in pieces]
    if sum(height * width for _, _, height, width in windows) > _MOST_WORK:
        raise RequestError(
            "expected a stroke of a brush, got one that is too long for its radius",
            field="stroke",
            hint="save it in parts, or draw an outline",
        )
    for (start, stop), (y, x, height, width) in zip(pieces, windows, strict=True):
        near = _distance(start, stop, y + np.arange(height) + 0.5, x + np.arange(width) + 0.5) <= radius
        inside[y - top : y - top + height, x - left : x - left + width] |= near
    at = np.floor(points).astype(np.int64) - (left, top)
    at = at[((at >= 0) & (at < (columns, rows))).all(axis=1)]
    inside[at[:, 1], at[:, 0]] = True
    return Patch(top, left, inside)


def _distance(
    start: NDArray[np.float64], stop: NDArray[np.float64], y: NDArray[np.floating], x: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the distance of points (rows `y`, columns `x`) from a piece of a line."""
    along = stop - start
    length = float(along @ along)
    right, down = x[None] - start[0], y[:, None] - start[1]
    share = np.clip((right * along[0] + down * along[1]) / length, 0, 1) if length else np.zeros((len(y), len(x)))
    distance: NDArray[np.float64] = np.hypot(right - share * along[0], down - share * along[1])
    return distance


def _window(points: NDArray[np.float64], radius: float, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return top, left, rows and columns of the pixels near some points; empty outside of the plane."""
    (left, top), (right, bottom) = points.min(axis=0) - radius, points.max(axis=0) + radius
    first = [min(max(math.floor(low), 0), length) for low, length in zip((top, left), shape, strict=True)]
    last = [min(max(math.floor(high) + 1, 0), length) for high, length in zip((bottom, right), shape, strict=True)]
    return first[0], first[1], max(last[0] - first[0], 0), max(last[1] - first[1], 0)
