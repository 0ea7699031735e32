"""Pixels as a pyramid of levels on disk, so that a tile costs the same at every zoom.

A level is a plain ``.npy`` file with the axes (T, C, Z, Y, X), which is mapped into memory: a tile reads only its rows.
Each level has half the width and height of the one before, down to one tile. A pixel of an image is the mean of two by
two pixels; of labels the largest of them, so that the smallest object is still there when the whole image is in view.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import MissingFileError, RequestError
from cytoray_analysis.images import AXES, Image
from cytoray_analysis.images.axes import COLOURS
from cytoray_serving.viewer.records import Channel, Level, Pyramid

TILE = 256
_BAND = 2**25  # pixels that are in memory at a time
_SAMPLE = 2**20  # pixels of a channel of which the contrast is estimated
_LOW, _HIGH = 1.0, 99.8  # percentiles


def level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Return (height, width) of each level, down to one that is a single tile."""
    sizes = [(height, width)]
    while max(sizes[-1]) > TILE:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


def pyramid_bytes(image: Image, *, without_first: bool = False) -> int:
    """Return the size of the levels of an image on disk."""
    planes = image.size("T") * image.size("C") * image.size("Z")
    sizes = level_sizes(image.size("Y"), image.size("X"))[int(without_first) :]
    return sum(h * w for h, w in sizes) * planes * _stored(image.dtype).itemsize


def write_pyramid(image: Image, folder: Path, *, labels: bool = False) -> Pyramid:
    """Write the levels of an image into a new folder.

    Parameters
    ----------
    image
        Any axes, any type of pixels; not finite pixels of a float image become 0.
    labels
        Whether its values are numbers of objects, which are stored as uint32.

    Raises
    ------
    CytorayError
        The image cannot be decoded.
    """
    folder.mkdir(parents=True)
    whole = image.select(AXES)
    sizes = level_sizes(*whole.shape[-2:])
    levels = _write_levels(whole, folder, sizes, labels=labels, skipped=0, before=0)
    return _pyramid(image, sizes, levels, labels=labels)


def write_coarse_levels(finer: Sequence[Image], folder: Path) -> Pyramid:
    """Write the levels that an image with levels of its own lacks, down to a single tile.

    Parameters
    ----------
    finer
        The levels that exist, the largest first; they are not copied.
    """
    folder.mkdir(parents=True)
    last = finer[-1].select(AXES)
    sizes = level_sizes(*last.shape[-2:])
    levels = _write_levels(last, folder, sizes, labels=False, skipped=1, before=len(finer))
    existing = [(one.size("Y"), one.size("X")) for one in finer]
    return _pyramid(finer[0], [*existing, *sizes[1:]], levels or [_sampled(last)], labels=False)


def _sampled(image: Image) -> NDArray[Any]:
    """Return some planes (N, C, 1, Y, X) of an image (T, C, Z, Y, X), evenly distributed."""
    frames, channels, planes, height, width = image.shape
    count = min(frames * planes, max(1, _SAMPLE // (height * width * channels)))
    places = np.unique(np.linspace(0, frames * planes - 1, count).astype(int))
    return np.concatenate(
        [
            image.read((slice(t, t + 1), slice(None), slice(z, z + 1), slice(None), slice(None)))
            for t, z in (divmod(place, planes) for place in places.tolist())
        ]
    )


def _write_levels(
    whole: Image, folder: Path, sizes: Sequence[tuple[int, int]], *, labels: bool, skipped: int, before: int
) -> list[Any]:
    """Write all levels of an image (T, C, Z, Y, X) but the first `skipped`, numbered from `before`."""
    *leading, height, width = whole.shape
    dtype = np.dtype(np.uint32) if labels else _stored(whole.dtype)
    levels = [
        _new_level(_path(folder, before + number), dtype, (*leading, *size))
        for number, size in enumerate(sizes[skipped:])
    ]
    for place in np.ndindex(*leading) if levels else ():
        at = tuple(slice(index, index + 1) for index in place)
        for top, rows in _bands(height, width):
            band = _clean(whole.read((*at, rows, slice(None)))[0, 0, 0], dtype)
            _put(levels[0][place], top, band, halve=bool(skipped), labels=labels)
        for finer, coarser in pairwise(levels):
            for top, rows in _bands(*finer.shape[-2:]):
                _put(coarser[place], top, finer[(*place, rows)], halve=True, labels=labels)
    for level in levels:
        level.flush()
    return levels


def _new_level(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    """Make the file of a level and reserve its disk space: a write to a map ends the process on a full disk."""
    level = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return level


def _put(plane: NDArray[Any], top: int, band: NDArray[Any], *, halve: bool, labels: bool) -> None:
    """Write the rows that begin at `top` into a plane, or into one of half the size."""
    rows, start = (_halved(band, labels=labels), top // 2) if halve else (band, top)
    plane[start : start + len(rows)] = rows


def _pyramid(image: Image, sizes: Sequence[tuple[int, int]], levels: Sequence[Any], *, labels: bool) -> Pyramid:
    return Pyramid(
        axes={axis: image.size(axis) for axis in AXES},
        channels=[] if labels else [_channel(name, levels, index) for index, name in enumerate(image.channels)],
        rgb=not labels and image.channels == COLOURS and image.dtype == np.uint8,
        levels=[Level(width=w, height=h) for h, w in sizes],
        tile=TILE,
    )


def read_tile(
    folder: Path,
    pyramid: Pyramid,
    level: int,
    column: int,
    row: int,
    *,
    t: int = 0,
    z: int = 0,
    finer: Sequence[Image] = (),
) -> NDArray[Any]:
    """Read a tile of all channels.

    Parameters
    ----------
    finer
        The first levels, if they are not in the folder. They may have fewer planes than the first one.

    Returns
    -------
    numpy.ndarray
        (C, Y, X), at most 256 × 256 pixels: less at the right and the lower edge.

    Raises
    ------
    RequestError
        There is no such level, tile, frame or plane.
    MissingFileError
        The pyramid was removed.
    CytorayError
        A level outside the folder cannot be read.
    """
    limits = {"level": len(pyramid.levels), "t": pyramid.axes["T"], "z": pyramid.axes["Z"]}
    given = {"level": level, "t": t, "z": z}
    if 0 <= level < len(pyramid.levels):
        size = pyramid.levels[level]
        limits |= {"column": -(-size.width // TILE), "row": -(-size.height // TILE)}
        given |= {"column": column, "row": row}
    for name, value in given.items():
        if not 0 <= value < limits[name]:
            raise RequestError(f"expected {name} from 0 to {limits[name] - 1}, got {value}", field=name)
    part = (slice(row * TILE, (row + 1) * TILE), slice(column * TILE, (column + 1) * TILE))
    source = finer[level] if level < len(finer) else finer[-1] if finer else None
    if source is not None:
        z = min(z * source.size("Z") // pyramid.axes["Z"], source.size("Z") - 1)
    if level < len(finer):
        region = (slice(t, t + 1), slice(None), slice(z, z + 1), *part)
        pixels = finer[level].select(AXES).read(region)[0, :, 0]
        return _clean(pixels, _stored(pixels.dtype))
    try:
        stored = np.load(_path(folder, level), mmap_mode="r")
    except FileNotFoundError as error:
        raise MissingFileError("the image was removed while it was read", hint="send it again") from error
    return np.asarray(stored[(t, slice(None), z, *part)])


def first_level(folder: Path) -> NDArray[Any]:
    """Return all pixels of a pyramid, (T, C, Z, Y, X), read from the file where they are used."""
    found: NDArray[Any] = np.load(_path(folder, 0), mmap_mode="r")
    return found


def _path(folder: Path, level: int) -> Path:
    return folder / f"level-{level}.npy"


def _stored(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type of the stored pixels: double precision is not visible."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    return np.dtype(np.float32) if dtype.kind == "f" or dtype.itemsize > 4 else dtype


def _clean(band: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind != "f":
        return band.astype(dtype, copy=False)
    limit = float(np.finfo(dtype).max)
    finite: NDArray[Any] = np.nan_to_num(np.clip(band, -limit, limit), nan=0.0)
    return finite.astype(dtype, copy=False)


def _bands(height: int, width: int) -> Iterator[tuple[int, slice]]:
    """Divide the rows of a level into bands of an even number of rows, which become whole rows of the next level."""
    rows = max(2, _BAND // width // 2 * 2)
    for top in range(0, height, rows):
        yield top, slice(top, min(top + rows, height))


def _halved(band: NDArray[Any], *, labels: bool) -> NDArray[Any]:
    """Join two by two pixels; at an odd edge the last row or column counts twice."""
    odd = ((0, band.shape[0] % 2), (0, band.shape[1] % 2))
    even = np.pad(band, odd, mode="edge") if any(more for _, more in odd) else band
    parts = (even[::2, ::2], even[::2, 1::2], even[1::2, ::2], even[1::2, 1::2])
    if labels:
        largest: NDArray[Any] = np.maximum.reduce(parts)
        return largest
    wide = np.float64 if band.dtype.kind == "f" else np.int64
    total = sum(part.astype(wide) for part in parts)
    mean = total / 4 if band.dtype.kind == "f" else (total + 2) >> 2  # type: ignore[operator]
    return np.asarray(mean).astype(band.dtype)


def _channel(name: str, levels: Sequence[Any], index: int) -> Channel:
    """Measure the contrast of a channel: percentiles on a level that is not large, over all frames and planes.

    Lowest and highest value are those of the largest level that is at hand.
    """
    values = next((one[:, index] for one in levels if one[:, index].size <= _SAMPLE), levels[-1][:, index])
    some = values.reshape(-1)[:: max(1, values.size // _SAMPLE)]
    low, high = (float(value) for value in np.percentile(some, (_LOW, _HIGH)))
    least, most = float(levels[0][:, index].min()), float(levels[0][:, index].max())
    if low >= high:
        low, high = least, most
    if low >= high:
        high = low + 1.0
    return Channel(name=name, low=low, high=high, min=least, max=most)
