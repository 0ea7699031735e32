"""An image larger than memory in blocks, which any number of processes answer independently.

A block's answer has its own object numbers, and the identity of each object in the whole image. When all blocks are
answered, :func:`cytoray_analysis.numbering.all_objects` gives the objects of the image, and
:func:`cytoray_analysis.numbering.image_numbers` the numbers that the image decoded whole would have given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cytoray_analysis.images import create_zarr
from cytoray_analysis.model_input import NetworkImage
from cytoray_analysis.tiles import Tile, core_for_budget

ZARR_CHUNK = 1024  # pixels along Y and X
ZARR_PLANES = 16  # along Z


@dataclass(frozen=True, eq=False)
class Blocks:
    """The blocks of an image, and the format of its answer.

    Attributes
    ----------
    source
        The image as the network takes it, read region by region.
    shape
        Spatial shape of the image, which its answer has.
    axes
        Spatial axes, such as ``YX``.
    core
        Size of a block along each axis without its margin; a multiple of the chunks that answers are written in.
    tiles
        The blocks; their cores cover the image once.
    channels
        (K,) channels of the answer, () where it has none.
    dtype
        Of the answer.
    numbered
        Whether values are numbers of objects, which blocks count by themselves.
    pixel_size
        Micrometres per pixel, when known.
    """

    source: NetworkImage
    shape: tuple[int, ...]
    axes: str
    core: tuple[int, ...]
    tiles: tuple[Tile, ...]
    channels: tuple[int, ...]
    dtype: np.dtype[Any]
    numbered: bool
    pixel_size: Mapping[str, float] | None

    def create(self, path: Path) -> Any:
        """Create the OME-Zarr of the answer, all zero; see :func:`create_answer`."""
        return create_answer(path, self.axes, self.shape, self.channels, self.dtype, self.pixel_size)


def create_answer(
    path: Path,
    axes: str,
    shape: tuple[int, ...],
    channels: tuple[int, ...],
    dtype: np.dtype[Any],
    pixel_size: Mapping[str, float] | None,
) -> Any:
    """Create an OME-Zarr for the answer of an image, to be filled block by block.

    Parameters
    ----------
    axes, shape
        Spatial axes of the image, and its length along each.
    channels, dtype
        Of the answer; signed integers, which are object numbers or classes, are kept as uint32.
    pixel_size
        Micrometres per pixel along each axis, when known.
    """
    return create_zarr(
        path,
        "C" * len(channels) + axes,
        (*channels, *shape),
        dtype=np.uint32 if dtype.kind == "i" else dtype,
        chunks=(1,) * len(channels) + chunk_of(len(axes)),
        channels=None if channels else ("labels",),
        pixel_size=pixel_size,
    )


def chunk_of(dimensions: int) -> tuple[int, ...]:
    """Return the size of the chunks that answers are written in, along each spatial axis."""
    return (ZARR_PLANES,) * (dimensions - 2) + (ZARR_CHUNK, ZARR_CHUNK)


def block_core(
    shape: tuple[int, ...], margin: tuple[int, ...], stride: tuple[int, ...], pixels: int
) -> tuple[int, ...]:
    """Return the size of blocks that, with their margin, hold at most about `pixels`.

    Blocks begin where chunks and cells of the network begin: two of them never write the same chunk.
    """
    unit = tuple(math.lcm(chunk, cell) for chunk, cell in zip(chunk_of(len(shape)), stride, strict=True))
    return core_for_budget(shape, margin, pixels, stride=unit)
