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


def per_axis(size: int | tuple[int, ...], dimensions: int) -> tuple[int, ...]:
    """Return a size along each of so many axes, which is either given along each or the same along all.

    Raises
    ------
    ValueError
        Another number of sizes is given.
    """
    sizes = (size,) * dimensions if isinstance(size, int) else tuple(size)
    if len(sizes) != dimensions:
        raise ValueError(f"expected one size, or {dimensions}, got {sizes}")
    return sizes


def tile_region(
    region: Region,
    shape: tuple[int, ...],
    core: tuple[int, ...],
    halo: int | tuple[int, ...],
    *,
    stride: int | tuple[int, ...] = 1,
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
        Least width that is read around the core, for all axes or along each; rounded up to a multiple of `stride`, so
        that every tile starts where a cell of the network starts in the whole image.
    stride
        Cell size of the network, for all axes or along each.
    """
    strides = per_axis(stride, len(shape))
    halos = [round_up(width, cell) for width, cell in zip(per_axis(halo, len(shape)), strides, strict=True)]
    steps = [max(round_up(size, cell), cell) for size, cell in zip(core, strides, strict=True)]
    axes = [_tiles_along(*axis) for axis in zip(region, shape, steps, halos, strides, strict=True)]
    for parts in itertools.product(*axes):
        cores, outers = zip(*parts, strict=True)
        yield Tile(cores, outers)


def _tiles_along(part: slice, length: int, step: int, halo: int, stride: int) -> list[tuple[slice, slice]]:
    """Return core and outer of the tiles along one axis.

    All that is read is equally wide, up to what is missing to a whole cell at the image's end: arrays of one size
    again and again leave no gaps in memory.
    """
    cores = [slice(start, min(start + step, part.stop)) for start in range(part.start, part.stop, step)]
    near = [(max(core.start - halo, 0), min(core.stop + halo, length)) for core in cores]
    width = round_up(max(stop - start for start, stop in near), stride)
    last = max(round_up(length, stride) - width, 0)
    starts = [min(start, last) for start, _ in near]
    return [(core, slice(start, min(start + width, length))) for core, start in zip(cores, starts, strict=True)]


def core_for_budget(
    shape: tuple[int, ...], halo: int | tuple[int, ...], pixels: int, *, stride: int | tuple[int, ...] = 1
) -> tuple[int, ...]:
    """Return the core size whose tiles, with their halo, hold at most about `pixels`.

    The whole image when it fits. Else axes are split again and again, each time the one whose split takes most from
    the tiles for the least that halos add. A core is never narrower than the halo: a budget below that would spend
    nearly all work on halos, and is exceeded instead.
    """
    halos, strides = per_axis(halo, len(shape)), per_axis(stride, len(shape))
    parts = [1] * len(shape)
    most = [max(1, length // max(width, cell)) for length, width, cell in zip(shape, halos, strides, strict=True)]

    def core(axis: int, count: int) -> int:
        return min(round_up(-(-shape[axis] // count), strides[axis]), shape[axis])

    def read(axis: int, count: int) -> int:
        return min(core(axis, count) + min(count - 1, 2) * halos[axis], shape[axis])

    def price(axis: int) -> float:
        """Return the growth of all work per shrinking of a tile, both as logarithms."""
        now, then = parts[axis], parts[axis] + 1
        work = [shape[axis] + 2 * halos[axis] * (count - 1) for count in (now, then)]
        shrinking = math.log(read(axis, now) / read(axis, then))
        return math.log(work[1] / work[0]) / shrinking if shrinking > 0 else math.inf

    while math.prod(read(axis, count) for axis, count in enumerate(parts)) > pixels:
        axes = [axis for axis, count in enumerate(parts) if count < most[axis]]
        if not axes:
            break
        # The longest among equals, so that images without halo are cut into squares.
        parts[min(axes, key=lambda axis: (price(axis), -core(axis, parts[axis])))] += 1
    return tuple(core(axis, count) for axis, count in enumerate(parts))


def round_up(size: int, stride: int) -> int:
    """Return the smallest multiple of `stride` that is at least `size`."""
    return -(-size // stride) * stride
