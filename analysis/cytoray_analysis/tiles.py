"""Cut an image into tiles whose answers, put together, are the answer for the whole image."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

Region = tuple[slice, ...]


@dataclass(frozen=True)
class Tile:
    """A part of an image.

    Attributes
    ----------
    core
        The region whose answer this tile gives; the cores of all tiles cover the image once.
    outer
        The region that must be read: the core and a halo, cut off at the image's border.
    """

    core: Region
    outer: Region

    @property
    def inner(self) -> Region:
        """The core, counted from the start of `outer`."""
        return within(self.core, self.outer)


def within(region: Region, frame: Region) -> Region:
    """Return `region` counted from the start of `frame`."""
    return tuple(
        slice(part.start - whole.start, part.stop - whole.start) for part, whole in zip(region, frame, strict=True)
    )


def whole(shape: tuple[int, ...]) -> Region:
    """Return the region that covers an image."""
    return tuple(slice(0, length) for length in shape)


def extent(region: Region) -> tuple[int, ...]:
    """Return the shape of a region."""
    return tuple(part.stop - part.start for part in region)


def tile_region(
    region: Region, shape: tuple[int, ...], core: tuple[int, ...], halo: int, *, stride: int = 1
) -> Iterator[Tile]:
    """Yield the tiles of a region of an image in row-major order.

    Parameters
    ----------
    region
        What the cores cover; starts at a multiple of `stride`.
    shape
        Size of the whole image along each axis.
    core
        Size of the core along each axis; rounded up to a multiple of `stride`.
    halo
        Width that is read around the core; rounded up to a multiple of `stride`, so that every tile starts
        where a cell of the network starts in the whole image.
    stride
        Cell size of the network.
    """
    halo = _round_up(halo, stride)
    steps = [max(_round_up(size, stride), stride) for size in core]
    starts = [range(part.start, part.stop, step) for part, step in zip(region, steps, strict=True)]
    for corner in itertools.product(*starts):
        cores, outers = [], []
        for start, step, part, length in zip(corner, steps, region, shape, strict=True):
            stop = min(start + step, part.stop)
            cores.append(slice(start, stop))
            outers.append(slice(max(start - halo, 0), min(stop + halo, length)))
        yield Tile(tuple(cores), tuple(outers))


def core_for_budget(shape: tuple[int, ...], halo: int, pixels: int, *, stride: int = 1) -> tuple[int, ...]:
    """Return the core size whose tiles, with their halo, hold at most about `pixels`.

    The whole image when it fits; else a square (or cube) as large as the budget allows, but never narrower
    than the halo: a budget below that would spend nearly all work on halos, and is exceeded instead.
    """
    if math.prod(shape) <= pixels:
        return shape
    open_axes = list(range(len(shape)))
    side, taken = 0, 1
    while open_axes:
        side = int((pixels / taken) ** (1 / len(open_axes)))
        short = [axis for axis in open_axes if shape[axis] <= side]
        if not short:
            break
        for axis in short:  # an axis shorter than the square leaves its share to the others
            taken *= shape[axis]
            open_axes.remove(axis)
    core = max(side - 2 * halo, halo, stride) // stride * stride
    return tuple(min(core, length) if axis in open_axes else length for axis, length in enumerate(shape))


def _round_up(size: int, stride: int) -> int:
    return -(-size // stride) * stride
