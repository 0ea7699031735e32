"""Shapes of an object in the planes between two planes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import RequestError
from cytoray_services.corrections.shapes import Patch

_MOST_WORK = 2**30  # comparisons of a distance map


def shapes_between(
    first: NDArray[np.bool_], last: NDArray[np.bool_], steps: int, shape: tuple[int, int]
) -> Iterator[Patch]:
    """Yield the shapes between two shapes, by the mean of their signed distances (shape-based interpolation).

    Raya and Udupa, IEEE Trans. Med. Imaging 9, 32 (1990). The centres of mass move on a straight line, so that shapes
    that do not overlap can be interpolated, too.

    Parameters
    ----------
    first, last
        (Y, X) the shapes, each with at least one pixel.
    steps
        Number of planes between them.
    shape
        Rows and columns of the plane.

    Raises
    ------
    RequestError
        A shape is too large.
    """
    begin, end = _Centred.of(first), _Centred.of(last)
    reach = max(begin.reach, end.reach) + 1
    distances = [_signed_distance(one.framed(reach)) for one in (begin, end)]
    for step in range(1, steps + 1):
        share = step / (steps + 1)
        inside = (1 - share) * distances[0] + share * distances[1] > 0
        y, x = (round((1 - share) * a + share * b) for a, b in zip(begin.centre, end.centre, strict=True))
        yield _within(Patch(y - reach, x - reach, inside), shape)


@dataclass(frozen=True, eq=False)
class _Centred:
    """The pixels of a shape as offsets from its centre."""

    centre: tuple[int, int]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> _Centred:
        places = np.argwhere(mask)
        y, x = (round(float(value)) for value in places.mean(axis=0))
        return cls((y, x), places - (y, x))

    @property
    def reach(self) -> int:
        return int(np.abs(self.offsets).max())

    def framed(self, reach: int) -> NDArray[np.bool_]:
        frame = np.zeros((2 * reach + 1,) * 2, np.bool_)
        frame[self.offsets[:, 0] + reach, self.offsets[:, 1] + reach] = True
        return frame


def _within(patch: Patch, shape: tuple[int, int]) -> Patch:
    """Return a patch without the pixels outside of the plane."""
    (top, bottom), (left, right) = (
        (min(max(part.start, 0), length), min(max(part.stop, 0), length))
        for part, length in zip(patch.place, shape, strict=True)
    )
    kept = patch.inside[top - patch.top : bottom - patch.top, left - patch.left : right - patch.left]
    return Patch(top, left, kept)


def _signed_distance(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the distance of each pixel to the border between inside and outside: positive inside."""
    side = len(inside)
    if side**3 > _MOST_WORK:
        raise RequestError(
            f"expected an object of at most {round(_MOST_WORK ** (1 / 3))} pixels along an axis, got about {side}",
            field="label",
            hint="copy it to the next plane, and correct it there",
        )
    # Half a pixel from the centre of a pixel to the border.
    return np.where(inside, _distance_to(~inside) - 0.5, 0.5 - _distance_to(inside))


def _distance_to(there: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the Euclidean distance of each pixel to the nearest marked one, of which there is at least one.

    First along the rows, then the lower envelope of the columns: two exact steps.
    """
    rows, columns = there.shape
    x = np.arange(columns)
    before = np.maximum.accumulate(np.where(there, x, -2 * columns), axis=1)
    after = np.minimum.accumulate(np.where(there, x, 3 * columns)[:, ::-1], axis=1)[:, ::-1]
    along = np.minimum(x - before, after - x).astype(np.float64) ** 2
    nearest = np.full(there.shape, np.inf)
    y = np.arange(rows, dtype=np.float64)[:, None]
    for row in range(rows):
        np.minimum(nearest, along[row][None] + (y - row) ** 2, out=nearest)
    distance: NDArray[np.float64] = np.sqrt(nearest)
    return distance
