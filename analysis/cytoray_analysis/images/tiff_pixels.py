"""The pixels of a TIFF image, decoded plane by plane on access.

Reading a declared but missing plane is an error, and never returns black.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import UnreadableImageError
from cytoray_analysis.images.tiff_segments import JPEG_2000_CODECS, JPEG_CODECS, check_segment
from cytoray_analysis.images.tiff_series import PageAt, TiffSeries, page_at

# None, LZW, deflate (two numbers), PackBits, LZMA, Zstandard: tifffile passes them the maximum number of bytes.
BOUNDED_CODECS = frozenset({1, 5, 8, 32946, 32773, 34925, 50000})
_LARGEST_SEGMENT = 2**26
_WHOLE_PLANE = 2**24  # planes up to so many bytes are decoded whole; of larger ones the tiles asked for


@dataclass(frozen=True, eq=False)
class TiffPixels:
    """The stored array of an image in a TIFF file.

    Holds no open file, so that it can be sent to another process.

    Parameters
    ----------
    source
        The file, or its bytes.
    shape, dtype
        Of the stored array.
    axes
        One letter per axis.
    page_shape
        Of each page; the axes of pages come last.
    pages, block, corrected, missing
        As in :class:`~cytoray_analysis.images.tiff_series.TiffSeries`.
    label
        The image's name, for messages.
    codec
        Compression of the first page that is there.
    alone
        Whether the file is untrusted.
    """

    source: Path | bytes
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: str
    page_shape: tuple[int, ...]
    pages: tuple[PageAt | None, ...]
    block: int | None
    corrected: int | None
    missing: str
    label: str
    codec: int
    alone: bool = False

    @classmethod
    def of(cls, source: Path | bytes, series: TiffSeries, label: str, *, alone: bool) -> TiffPixels:
        """Return the pixels of an image that was listed."""
        return cls(
            source,
            series.info.shape,
            series.dtype,
            series.info.axes,
            tuple(int(length) for length in series.keyframe.shape),
            series.pages,
            series.block,
            series.corrected,
            series.missing,
            label,
            int(series.keyframe.compression),
            alone,
        )

    def __getitem__(self, region: tuple[slice, ...]) -> NDArray[Any]:
        """Decode a region, one slice per axis.

        Raises
        ------
        UnreadableImageError
            It touches a plane, a strip or a tile that is not in the file.
        """
        if self.block is not None:
            return self._from_block(region)
        with self._opened() as (file, others):
            return self.read_from(file, region, others)

    def read_from(self, file: Any, region: tuple[slice, ...], others: dict[str, Any] | None = None) -> NDArray[Any]:
        """Decode a region from the file, which is open; other files are opened into `others`."""
        others = {} if others is None else others
        count = len(self.shape) - len(self.page_shape)
        outer = [range(*part.indices(length)) for part, length in zip(region[:count], self.shape, strict=False)]
        inner = region[count:]
        if not outer:
            return self._page(file, others, (), inner)
        lengths = [len(range(*part.indices(length))) for part, length in zip(inner, self.page_shape, strict=True)]
        pixels = np.empty((*(len(part) for part in outer), *lengths), self.dtype)
        for place in product(*(range(len(part)) for part in outer)):
            indexes = tuple(part[index] for part, index in zip(outer, place, strict=True))
            pixels[place] = self._page(file, others, indexes, inner)
        return pixels

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        others: dict[str, Any] = {}
        with ExitStack() as stack:
            file = stack.enter_context(open_tiff(self.source, alone=self.alone))
            stack.callback(lambda: [other.close() for other in others.values()])
            yield file, others

    def _page(
        self, file: Any, others: dict[str, Any], indexes: tuple[int, ...], region: tuple[slice, ...]
    ) -> NDArray[Any]:
        number = int(np.ravel_multi_index(indexes, self.shape[: len(indexes)])) if indexes else 0
        place = self.pages[number]
        if place is None:
            raise self._absent(indexes, f"is missing: {self.missing}")
        if place.doubt:
            raise self._absent(indexes, place.doubt)
        if self.corrected is not None:
            page = file.series[self.corrected].pages[place.offset]
        else:
            page = page_at(file, place, others)
        if page.shape != self.page_shape or page.dtype is None:
            size = " × ".join(map(str, page.shape))
            raise self._absent(indexes, f"has another size ({size}) or pixel type than the first")
        if self.alone:
            self._check_bounded(page, indexes)
        self._check_present(page, indexes, region)
        if page.dtype != self.dtype:
            raise self._absent(indexes, f"has pixels of {page.dtype}, the first of {self.dtype}")
        whole = math.prod(self.page_shape) * self.dtype.itemsize <= _WHOLE_PLANE
        if self.alone and not isinstance(self.source, bytes):
            self._check_headers(page, (slice(None),) * len(self.page_shape) if whole else region)
        if whole or all(
            part.indices(length) == (0, length, 1) for part, length in zip(region, page.shape, strict=True)
        ):
            decoded = np.asarray(page.asarray())
            if decoded.shape != self.page_shape:
                raise ValueError(f"the header declares {self.page_shape}, the pixels decode to {decoded.shape}")
            return decoded[region]
        import zarr

        with page.aszarr() as store:
            return np.asarray(zarr.open_array(store, mode="r")[region])

    def _check_present(self, page: Any, indexes: tuple[int, ...], region: tuple[slice, ...]) -> None:
        """Raise if a strip or a tile in the region is empty or beyond the end of its file."""
        counts, offsets = page.databytecounts, page.dataoffsets
        kind = "tile" if page.is_tiled else "strip"
        expected = math.prod(page.chunked)
        if len(offsets) < expected or len(counts) < expected:
            raise self._absent(indexes, f"declares {expected} {kind}s, but lists {min(len(offsets), len(counts))}")
        if int(page.compression) == 1 and page.bitspersample % 8 == 0 and all(counts):
            declared = math.prod(page.shape) * np.dtype(page.dtype).itemsize
            if sum(counts) < declared and not page.is_subsampled:
                raise self._absent(indexes, f"has {sum(counts)} bytes of {declared}: it is truncated")
        length = int(page.parent.filehandle.size)
        for segment in _touched(page, region):
            offset, count = int(offsets[segment]), int(counts[segment])
            if not count or not offset:
                raise self._absent(indexes, f"lacks {kind} {segment} of {expected}: it has no bytes in the file")
            if offset + count > length:
                end = offset + count
                raise self._absent(indexes, f"extends to byte {end}, but the file ends at {length}: it is truncated")

    def _check_bounded(self, page: Any, indexes: tuple[int, ...]) -> None:
        """Raise if a page of an untrusted file could decode to more than the first one, which was checked."""
        codec = int(page.compression)
        headed = frozenset() if isinstance(self.source, bytes) else JPEG_CODECS | JPEG_2000_CODECS
        if codec != self.codec and codec not in BOUNDED_CODECS | headed:
            raise self._absent(
                indexes, "is compressed in another way than the first, with a size that cannot be limited"
            )
        if has_large_segments(page):
            raise self._absent(indexes, "has strips or tiles larger than the image")

    def _check_headers(self, page: Any, region: tuple[slice, ...]) -> None:
        """Check the strips or tiles of an untrusted file that are decoded now; all of them if the file is in memory."""
        codec = int(page.compression)
        if codec not in JPEG_CODECS | JPEG_2000_CODECS:
            return
        handle = page.parent.filehandle
        for segment in _touched(page, region):
            if not page.databytecounts[segment]:
                continue
            handle.seek(int(page.dataoffsets[segment]))
            check_segment(handle.read(int(page.databytecounts[segment])), codec, math.prod(page.chunks), self.label)

    def _absent(self, indexes: tuple[int, ...], what: str) -> UnreadableImageError:
        sizes = zip(self.axes, self.shape, indexes, strict=False)
        named = ", ".join(f"{axis}={index}" for axis, length, index in sizes if length > 1)
        return UnreadableImageError(
            f"{self.label}: the plane {named or 'of the image'} {what}",
            field="bytes",
            hint="copy or export the image again; or choose existing planes with --plane N, --frame N or "
            "--channel NAME",
        )

    def _from_block(self, region: tuple[slice, ...]) -> NDArray[Any]:
        """Take a region of planes that follow each other, uncompressed."""
        with open_tiff(self.source, alone=self.alone) as file:
            dtype = np.dtype(self.dtype).newbyteorder(file.byteorder)
        size = math.prod(self.shape) * dtype.itemsize
        length = len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size
        if int(self.block or 0) + size > length:
            raise self._absent((), f"extends to byte {int(self.block or 0) + size}, but the file ends at {length}")
        if isinstance(self.source, bytes):
            flat = np.frombuffer(self.source, dtype, math.prod(self.shape), int(self.block or 0))
            return flat.reshape(self.shape)[region]
        mapped = np.memmap(self.source, dtype, "r", int(self.block or 0), self.shape)
        return np.array(mapped[region])


def _touched(page: Any, region: tuple[slice, ...]) -> Iterator[int]:
    """Yield the numbers of the strips or tiles that a region of a page touches."""
    grid, sizes = tuple(page.chunked), tuple(page.chunks)
    if len(grid) != len(region) or len(sizes) != len(region):  # samples without an axis of their own in the grid
        yield from range(math.prod(grid))
        return
    ranges = []
    for part, side, length in zip(region, sizes, page.shape, strict=True):
        covered = range(*part.indices(length))
        if not len(covered):
            return
        ranges.append(range(min(covered) // side, max(covered) // side + 1))
    for place in product(*ranges):
        yield int(np.ravel_multi_index(place, grid))


def has_large_segments(page: Any) -> bool:
    """Whether strips or tiles of a page are much larger than the page: each is decoded as a whole."""
    segment = math.prod(page.chunks) * page.dtype.itemsize
    return bool(segment > max(_LARGEST_SEGMENT, 4 * math.prod(page.shape) * page.dtype.itemsize))


def open_tiff(source: bytes | Path, *, alone: bool = False) -> Any:
    """Open a TIFF file or its bytes with tifffile.

    Axes of OME metadata are read by :mod:`cytoray_analysis.images.tiff_listing`. Bytes are untrusted: nothing in them
    may name other files to be opened, and the same holds for files that are opened `alone`.
    """
    from tifffile import TiffFile

    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    several = False if alone or isinstance(source, bytes) else None
    return TiffFile(opened, is_ome=False, is_mmstack=False, is_ndtiff=False, _multifile=several)
