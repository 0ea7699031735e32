"""Outlines of labelled objects as polygons that cover exactly their pixels.

Pixel ``(y, x)`` covers the square from ``(x, y)`` to ``(x + 1, y + 1)``, as in QuPath and in OpenSlide. Outlines run
along the edges between pixels, so drawing a polygon again gives back every pixel of the object and no other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Ring = list[list[int]]

# The four sides of a pixel, walked clockwise (y down), the pixel on the right-hand side: right along its top, down
# along its right side, left along its bottom, up along its left side. For each: the step to the pixel across the
# side, the step to the pixel ahead, and the corner where the side starts.
_ACROSS = ((-1, 0), (0, 1), (1, 0), (0, -1))
_AHEAD = ((0, 1), (1, 0), (0, -1), (-1, 0))
_START = ((0, 0), (0, 1), (1, 1), (1, 0))


@dataclass(frozen=True)
class Outline:
    """The outline of one object.

    Attributes
    ----------
    label
        The object's number in the label image.
    area
        Its pixels.
    polygons
        One polygon per piece that is connected through pixel edges: the outer ring, then the rings of its holes.
        A ring is a closed list of ``[x, y]`` corners (the last is the first again); outer rings are
        counter-clockwise when y points up (RFC 7946).
    """

    label: int
    area: int
    polygons: list[list[Ring]]


def trace_outlines(labels: NDArray[np.integer]) -> list[Outline]:
    """Trace the outlines of all objects of a label image.

    Rings never touch themselves (where two pixels of one piece meet in a corner only, the outer ring and a hole meet
    there), so that every polygon is valid by the OGC's simple features.

    Parameters
    ----------
    labels
        ``(Y, X)`` integers; 0 and below is background.

    Returns
    -------
    list of Outline
        In the order of their labels.
    """
    from skimage.measure import label as connected_pieces

    foreground = np.where(labels > 0, labels, 0)
    pieces = np.pad(connected_pieces(foreground, connectivity=1), 1)  # type: ignore[no-untyped-call]
    polygons: dict[int, list[Ring]] = defaultdict(list)
    for piece, ring in _rings(pieces):
        if _is_outer(ring):
            polygons[piece].insert(0, ring)
        else:
            polygons[piece].append(ring)
    first = np.unique(pieces, return_index=True)
    numbers = np.pad(foreground, 1).ravel()[first[1]]
    by_label: dict[int, list[list[Ring]]] = defaultdict(list)
    for piece, number in zip(first[0].tolist(), numbers.tolist(), strict=True):
        if piece > 0:
            by_label[number].append(polygons[piece])
    areas = dict(zip(*(column.tolist() for column in np.unique(foreground, return_counts=True)), strict=True))
    return [Outline(number, areas[number], by_label[number]) for number in sorted(by_label)]


def _rings(pieces: NDArray[np.integer]) -> Iterator[tuple[int, Ring]]:
    """Walk along all borders of a padded image of pieces; yields the piece's number and the ring."""
    width = pieces.shape[1]
    flat = pieces.ravel()
    sides: list[NDArray[np.int64]] = []
    following: list[NDArray[np.int64]] = []
    for side in range(4):
        across = _ACROSS[side][0] * width + _ACROSS[side][1]
        ahead = _AHEAD[side][0] * width + _AHEAD[side][1]
        inside = np.flatnonzero(flat)
        pixels = inside[flat[inside] != flat[inside + across]]
        own = flat[pixels]
        # Turn left into the pixel diagonally ahead, go straight on along the one ahead, or turn right around this one.
        left = flat[pixels + across + ahead] == own
        straight = ~left & (flat[pixels + ahead] == own)
        turn = np.where(left, (side + 3) % 4, np.where(straight, side, (side + 1) % 4))
        reached = pixels + np.where(left, across + ahead, np.where(straight, ahead, 0))
        sides.append(pixels * 4 + side)
        following.append(reached * 4 + turn)
    keys = np.concatenate(sides)
    order = np.argsort(keys)
    keys = keys[order]
    successor = np.searchsorted(keys, np.concatenate(following)[order])
    direction = keys % 4
    pixels = keys // 4
    starts = np.array(_START)[direction]
    # A corner of the ring is where the walk changes its direction; the padding of one pixel is taken off again.
    corners = np.stack([pixels % width + starts[:, 1], pixels // width + starts[:, 0]], axis=1) - 1
    turns = np.empty(len(keys), dtype=bool)
    turns[successor] = direction != direction[successor]
    return _follow(successor.tolist(), turns.tolist(), corners.tolist(), flat[pixels].tolist())


def _follow(
    successor: list[int], turns: list[bool], corners: list[list[int]], owners: list[int]
) -> Iterator[tuple[int, Ring]]:
    walked = [False] * len(successor)
    for begin in range(len(successor)):
        if walked[begin]:
            continue
        ring: Ring = []
        side = begin
        while not walked[side]:
            walked[side] = True
            if turns[side]:
                ring.append(corners[side])
            side = successor[side]
        ring.append(ring[0])
        yield owners[begin], ring


def _is_outer(ring: Ring) -> bool:
    # The shoelace formula; a walk with the object on its right has a positive area when it goes around an object.
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(ring)) > 0
