"""TIFF files: open a file, and check its header against the file size before any pixel is decoded."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cytoray_analysis.answer_warnings import Warnings
from cytoray_analysis.errors import ImageTooLargeError, UnreadableImageError
from cytoray_analysis.images.limits import Limits
from cytoray_analysis.images.tiff_directories import check_chain, check_directories, check_ome
from cytoray_analysis.images.tiff_pixels import BOUNDED_CODECS, has_large_segments, open_tiff
from cytoray_analysis.images.tiff_segments import JPEG_2000_CODECS, JPEG_CODECS, check_segment
from cytoray_analysis.images.tiff_series import TiffSeries, page_at

# zstd, the densest codec in use, stores a blank 128 KiB block in 4 bytes.
_DENSEST_COMPRESSION = 50_000


@contextmanager
def opened_tiff(source: bytes | Path, limits: Limits, label: str, *, alone: bool) -> Iterator[tuple[Any, Warnings]]:
    """Open a TIFF file, with warnings about data beyond its end; check untrusted directories and OME metadata first.

    Raises
    ------
    CytorayError
        As :func:`check_directories` and :func:`check_ome` raise them.
    """
    if isinstance(source, bytes):
        lost = check_directories(source, limits, label)
    else:
        with source.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            lost = check_directories(data, limits, label) if alone else check_chain(data, label)
    with open_tiff(source, alone=alone) as file:
        if (alone or isinstance(source, bytes)) and file.pages:
            check_ome(str(file.pages.first.description or ""), label)
        yield file, lost


def is_bounded(source: bytes | Path, series: TiffSeries) -> bool:
    """Whether the codec of an untrusted image has a limited output size.

    The header of JPEG 2000 is trusted in files, because slides may be too large for another way, but not in uploads.
    """
    headed = JPEG_CODECS if isinstance(source, bytes) else JPEG_CODECS | JPEG_2000_CODECS
    return int(series.keyframe.compression) in BOUNDED_CODECS | headed


def require_decodable_apart(source: Path, series: TiffSeries, most: int, label: str) -> None:
    """Raise if an untrusted file with an unlimited codec is too large for a limited process.

    Raises
    ------
    ImageTooLargeError
        It must be decoded completely there, which needs more than `most` bytes.
    """
    declared = math.prod(series.info.shape) * series.dtype.itemsize
    if max(declared, source.stat().st_size) > most:
        raise ImageTooLargeError(
            f"{label} is compressed with {series.keyframe.compression!r}, whose decoded size cannot be limited; such "
            f"files are decoded completely, and it declares {declared} bytes, more than the {most} allowed",
            hint="store it as OME-Zarr, or as TIFF with LZW, deflate, Zstandard, JPEG or JPEG 2000",
        )


def check_segments(file: Any, series: TiffSeries, label: str) -> None:
    """Check the strips or tiles of an untrusted image, which are decoded one by one.

    Raises
    ------
    UnreadableImageError
        One is larger than the image.
    """
    page = series.keyframe
    if has_large_segments(page):
        segment = math.prod(page.chunks) * page.dtype.itemsize
        raise UnreadableImageError(
            f"{label}: the TIFF header declares strips or tiles of {segment} bytes, larger than the image",
            field="bytes",
            hint="the file is damaged; copy or export it again",
        )
    if int(page.compression) in JPEG_CODECS:
        _check_jpeg_segments(file, series, math.prod(page.chunks), label)


def _check_jpeg_segments(file: Any, series: TiffSeries, samples: int, label: str) -> None:
    """Compare the sizes in the headers of JPEG strips or tiles with those of the file."""
    for place in series.pages:
        if place is None:
            continue
        page = page_at(file, place) if series.corrected is None else file.series[series.corrected].pages[place.offset]
        handle = page.parent.filehandle
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
            if not count:
                continue
            handle.seek(offset)
            check_segment(handle.read(count), int(page.compression), samples, label)


def check_bytes_present(file: Any, series: TiffSeries, label: str) -> None:
    """Compare the declared size of an image with the bytes of its first and its last plane in the file.

    Raises
    ------
    UnreadableImageError
        There are fewer.
    """
    if series.block is not None:
        end = series.block + math.prod(series.info.shape) * series.dtype.itemsize
        length = int(file.filehandle.size)
        if end > length:
            raise _truncated(f"{label}: the TIFF header places pixels up to byte {end}, but the file ends at {length}")
        return
    there = [place for place in series.pages if place is not None]
    pages = [series.keyframe]
    if len(there) > 1 and series.corrected is None:
        pages.append(page_at(file, there[-1]))
    for page in pages:
        _check_page(page, label)


def _check_page(page: Any, label: str) -> None:
    if page.dtype is None:
        return
    declared = math.prod(page.shape) * np.dtype(page.dtype).itemsize
    compressed, packed = int(page.compression) != 1, page.bitspersample % 8 != 0
    factor = _DENSEST_COMPRESSION if compressed else 8 if packed else 1
    length = int(page.parent.filehandle.size)
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
    if max(ends, default=0) > length:
        raise _truncated(
            f"{label}: the TIFF header places pixels up to byte {max(ends)}, but the file ends at {length}"
        )
    segments = math.prod(page.chunked)
    if len(page.dataoffsets) < segments:
        raise _truncated(
            f"{label}: the TIFF header declares {segments} strips or tiles, but lists {len(page.dataoffsets)}"
        )
    present = int(sum(page.databytecounts))
    # Strips without bytes raise another error on access.
    if present and all(page.databytecounts) and declared > present * factor and not page.is_subsampled:
        size = " × ".join(str(length) for length in page.shape)
        raise _truncated(
            f"{label}: the TIFF header declares {size} pixels ({declared} bytes), "
            f"but the file contains {present} bytes of them"
        )


def _truncated(message: str) -> UnreadableImageError:
    return UnreadableImageError(message, field="bytes", hint="the file is truncated; copy or export it again")
