"""TIFF files: what the header says, checked against the bytes that are there before any pixel is decoded."""

from __future__ import annotations

import io
import math
import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from cytoray_analysis.errors import UnreadableImageError
from cytoray_analysis.images.axes import micrometres, resolve_axes
from cytoray_analysis.images.limits import Limits
from cytoray_analysis.images.picture import jpeg_header, too_many_scans
from cytoray_analysis.images.tiff_directories import check_directories, check_ome

# Screens and printers write 72 to 1200 dots per inch (21 µm and more) into files whose real pixel size nobody knew.
_COARSEST_CREDIBLE_PIXEL = 20.0
# zstd, the densest codec in use, stores a blank 128 KiB block in 4 bytes.
_DENSEST_COMPRESSION = 50_000
# None, LZW, deflate (two numbers), PackBits, LZMA, Zstandard: tifffile tells them how many bytes to expect at most.
_BOUNDED_CODECS = frozenset({1, 5, 8, 32946, 32773, 34925, 50000})
_JPEG_CODECS = frozenset({7})
_LARGEST_SEGMENT = 2**26
_RESOLUTION_UNITS = {2: "inch", 3: "cm"}


@dataclass(frozen=True)
class TiffHeader:
    """What a TIFF file declares about its first image.

    Parameters
    ----------
    axes
        One letter per axis of the stored array, possibly with ``S`` for samples.
    shape, dtype
        Of the stored array.
    is_ome
        Whether OME metadata describes the file.
    channels
        Channel names of the OME metadata, if any.
    pixel_size
        Micrometres per pixel by axis; ``None`` for unknown.
    alpha
        Whether the last sample is transparency.
    plane_bytes
        Size of the largest single page, decoded.
    """

    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_ome: bool
    channels: tuple[str, ...] | None
    pixel_size: Mapping[str, float | None]
    alpha: bool
    plane_bytes: int


@dataclass(frozen=True)
class TiffPixels:
    """The stored array of a TIFF file, decoded strip by strip or tile by tile as regions are asked for.

    Holds no open file, so that it can be sent to another process.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    alone: bool = False

    def __getitem__(self, region: tuple[slice, ...]) -> np.ndarray:
        """Decode a region: one slice per axis of the stored array."""
        import zarr

        with open_tiff(self.path, alone=self.alone) as file, file.series[0].aszarr(level=0) as store:
            return np.asarray(zarr.open_array(store, mode="r")[region])


def open_tiff(source: bytes | Path, *, alone: bool = False) -> Any:
    """Open a TIFF file or its bytes with tifffile.

    Bytes come from strangers: OME metadata in them may not name other files to be opened. The same holds for files
    that are opened `alone`.
    """
    from tifffile import TiffFile

    if isinstance(source, bytes):
        return TiffFile(io.BytesIO(source), is_mmstack=False, is_ndtiff=False, _multifile=False)
    if alone:
        return TiffFile(source, is_mmstack=False, is_ndtiff=False, _multifile=False)
    return TiffFile(source, is_mmstack=False)


@contextmanager
def open_stranger(source: bytes | Path, limits: Limits, label: str) -> Iterator[Any]:
    """Open a TIFF file of a stranger, its directories and OME metadata checked first.

    Raises
    ------
    CytorayError
        As :func:`check_directories` and :func:`check_ome` raise them.
    """
    if isinstance(source, bytes):
        check_directories(source, limits, label)
    else:
        with source.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            check_directories(data, limits, label)
    with open_tiff(source, alone=True) as file:
        if file.is_ome and file.ome_metadata:
            check_ome(file.ome_metadata, limits, label)
        yield file


def check_segments(file: Any, label: str) -> None:
    """Check the strips or tiles of the first image of a stranger's file, which are decoded one by one.

    Codecs that say themselves how large a segment is are refused, unless that is known to be checked here; the others
    are given the size that they may decode to.

    Raises
    ------
    UnreadableImageError
        One is larger than the image, or of a codec that is not decoded for strangers.
    """
    page = file.series[0].keyframe
    codec = int(page.compression)
    if codec not in _BOUNDED_CODECS | _JPEG_CODECS:
        raise UnreadableImageError(
            f"{label} is compressed with {getattr(page.compression, 'name', codec)}, which is not read from requests",
            hint="save it with deflate, LZW, Zstandard or JPEG compression, or without",
        )
    segment = math.prod(page.chunks) * page.dtype.itemsize
    if segment > max(_LARGEST_SEGMENT, 4 * math.prod(page.shape) * page.dtype.itemsize):
        raise UnreadableImageError(
            f"{label}: the TIFF header declares strips or tiles of {segment} bytes, larger than the image",
            field="bytes",
            hint="the file is damaged; copy or export it again",
        )
    if codec in _JPEG_CODECS:
        _check_jpeg_segments(file.series[0], math.prod(page.chunks), label)


def _check_jpeg_segments(series: Any, samples: int, label: str) -> None:
    """Compare the sizes in the headers of JPEG strips or tiles with what the file declares."""
    for page in series.pages:
        handle = page.parent.filehandle
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            if not count:
                continue
            handle.seek(offset)
            segment = handle.read(count)
            header = jpeg_header(io.BytesIO(segment))
            if math.prod(header.shape[:2]) > 4 * max(samples, 2**16) or too_many_scans(segment):
                raise UnreadableImageError(
                    f"{label}: a JPEG strip or tile of {' × '.join(map(str, header.shape))} is larger than the image",
                    field="bytes",
                    hint="the file is damaged; copy or export it again",
                )


def tiff_header(file: Any, source: str) -> TiffHeader:
    """Read the header of an open :class:`tifffile.TiffFile` and check it against the bytes present.

    Raises
    ------
    UnreadableImageError
        When the file declares no image or holds fewer bytes than it declares.
    AxesError
        When it has axes that nothing here can name.
    """
    if not file.series:
        raise UnreadableImageError(f"{source}: the TIFF file declares no image", hint="export the image again")
    series = file.series[0]
    page = series.keyframe
    shape = tuple(int(length) for length in series.shape)
    axes = resolve_axes(series.axes, shape, source)
    if series.dtype is None:
        raise UnreadableImageError(f"{source}: the TIFF file declares a pixel type that nothing here knows")
    dtype = np.dtype(series.dtype)
    _check_bytes_present(file, series, source)
    ome = file.ome_metadata if file.is_ome else None
    channels, pixel_size = _ome_facts(ome) if ome else (None, _resolution(file, page))
    return TiffHeader(
        axes=axes,
        shape=shape,
        dtype=dtype,
        is_ome=bool(ome),
        channels=channels,
        pixel_size=pixel_size,
        alpha=any(int(kind) in (1, 2) for kind in (page.extrasamples or ())),
        plane_bytes=math.prod(page.shape) * dtype.itemsize,
    )


def _check_bytes_present(file: Any, series: Any, source: str) -> None:
    hint = "the file is truncated; copy or export it again"
    page = series.keyframe  # the later pages of a series have the shape and the compression of this one
    declared = math.prod(page.shape) * np.dtype(page.dtype).itemsize
    compressed, packed = int(page.compression) != 1, page.bitspersample % 8 != 0
    factor = _DENSEST_COMPRESSION if compressed else 8 if packed else 1
    for frame in (series.pages[0], series.pages[-1]):
        if frame is None:
            continue
        length = int(frame.parent.filehandle.size)  # an OME-TIFF may lie in several files
        ends = [offset + count for offset, count in zip(frame.dataoffsets, frame.databytecounts, strict=True)]
        if max(ends, default=0) > length:
            raise UnreadableImageError(
                f"{source}: the TIFF header places pixels up to byte {max(ends)}, but the file ends at {length}",
                field="bytes",
                hint=hint,
            )
        segments = math.prod(page.chunked)
        if len(frame.dataoffsets) < segments:
            raise UnreadableImageError(
                f"{source}: the TIFF header declares {segments} strips or tiles, but lists {len(frame.dataoffsets)}",
                field="bytes",
                hint=hint,
            )
        present = int(sum(frame.databytecounts))
        if declared > present * factor and not page.is_subsampled:
            size = " × ".join(str(length) for length in page.shape)
            raise UnreadableImageError(
                f"{source}: the TIFF header declares {size} pixels ({declared} bytes), "
                f"but the file holds {present} bytes of them",
                field="bytes",
                hint=hint,
            )
    length = int(file.filehandle.size)
    if series.dataoffset is not None and not compressed:
        end = int(series.dataoffset) + int(series.nbytes)
        if end > length:
            raise UnreadableImageError(
                f"{source}: the TIFF header places pixels up to byte {end}, but the file ends at {length}",
                field="bytes",
                hint=hint,
            )


def _ome_facts(xml: str) -> tuple[tuple[str, ...] | None, dict[str, float | None]]:
    """Channel names and pixel size of the first image; OME gives micrometres where no unit is written."""
    pixels = ElementTree.fromstring(xml).find(".//{*}Pixels")  # noqa: S314 - expat limits entity expansion itself
    if pixels is None:
        return None, {}
    sizes = {
        axis: micrometres(_number(pixels.get(f"PhysicalSize{axis}")), pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        for axis in "ZYX"
    }
    names = tuple(channel.get("Name") or "" for channel in pixels.findall("{*}Channel"))
    return names or None, sizes


def _resolution(file: Any, page: Any) -> dict[str, float | None]:
    """Pixel size by the resolution tags, in ImageJ's unit where ImageJ wrote it."""
    unit: str | None
    depth = None
    if file.is_imagej:
        metadata = file.imagej_metadata or {}
        unit = str(metadata.get("unit", "")).replace("\\u00B5", "µ")
        depth = micrometres(_number(metadata.get("spacing")), unit)
    else:
        tag = page.tags.get("ResolutionUnit")
        unit = _RESOLUTION_UNITS.get(int(tag.value)) if tag is not None else None
    sizes = {axis: _tag_length(page.tags.get(f"{axis}Resolution"), unit) for axis in "YX"}
    if not file.is_imagej:
        sizes = {axis: size if size and size <= _COARSEST_CREDIBLE_PIXEL else None for axis, size in sizes.items()}
    return {"Z": depth, **sizes}


def _tag_length(tag: Any, unit: str | None) -> float | None:
    """Length of a pixel where the tag is a fraction, pixels per unit."""
    if tag is None:
        return None
    pixels, units = tag.value
    return micrometres(units / pixels, unit) if pixels else None


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
