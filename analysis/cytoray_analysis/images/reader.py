"""Reading images: one reader for paths, bytes and stores; the header is checked before the pixels.

All image input uses this module, so a file results in the same array, axes, channel names and pixel size whatever its
source. The content determines the format:

- TIFF is decoded by tifffile (:mod:`cytoray_analysis.images.tiff_listing` says which planes there are), PNG and JPEG by
  libpng and Pillow, OME-Zarr by zarr;
- vendors' formats and other pictures by the bioio reader of the format.

Untrusted files are read in the same way, but they may not refer to other files, and codecs without a size limit run in
a separate process (:mod:`cytoray_analysis.images.uploads`).
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cytoray_analysis.answer_warnings import AnswerWarning, Warnings
from cytoray_analysis.errors import (
    MissingFileError,
    UnreadableImageError,
)
from cytoray_analysis.images.archive import ZIP_STARTS, list_in
from cytoray_analysis.images.arrange import arrange, arrange_samples
from cytoray_analysis.images.axes import (
    resolve_axes,
)
from cytoray_analysis.images.choose import choose
from cytoray_analysis.images.colours import tiff_colours
from cytoray_analysis.images.damage import reading
from cytoray_analysis.images.image import Image
from cytoray_analysis.images.label_values import refuse_lossy
from cytoray_analysis.images.limits import Declared, Limits, check_declared
from cytoray_analysis.images.ome_zarr import list_zarr, open_zarr
from cytoray_analysis.images.picture import (
    LARGEST_PICTURE,
    PictureHeader,
    decode_picture,
    frames_left_out,
    is_picture,
    picture_header,
)
from cytoray_analysis.images.series import SeriesInfo, choose_series
from cytoray_analysis.images.tiff import (
    check_bytes_present,
    check_segments,
    is_bounded,
    opened_tiff,
    require_decodable_apart,
)
from cytoray_analysis.images.tiff_directories import TIFF_STARTS
from cytoray_analysis.images.tiff_listing import list_tiff_series
from cytoray_analysis.images.tiff_pixels import TiffPixels
from cytoray_analysis.images.uploads import declared_in_upload, needs_file, read_upload
from cytoray_analysis.images.vendor_images import open_vendor, read_vendor, scenes_of, unknown_format
from cytoray_analysis.selection import EVERYTHING, Selection

# Formats with a signature: a file with such a name but another signature is not tried again.
_KNOWN_SUFFIXES = {".tif", ".tiff", ".png", ".jpg", ".jpeg", ".zarr", ".txt", ".csv"}
_MOST_APART = 2**32  # size of an untrusted file that is decoded in a limited process
_ZARR_FILES = ("zarr.json", ".zgroup", ".zattrs", ".zarray")


def read_image(
    source: str | Path | bytes,
    *,
    limits: Limits | None = None,
    name: str | None = None,
    alone: bool = False,
    selection: Selection = EVERYTHING,
    labels: bool = False,
) -> Image:
    """Read an image; pixels are decoded on access.

    Axes of length one other than ``Y`` and ``X`` are dropped, whatever the format stores, so that the same image has
    the same axes in every format; :meth:`Image.select` adds them back. Colours are read as every viewer shows them:
    :mod:`cytoray_analysis.images.colours`. Transparency is dropped: it affects the display, not the measurement. Tags
    of orientation are not applied.

    Parameters
    ----------
    source
        A file, an OME-Zarr folder, or the bytes of a file: TIFF, PNG, JPEG, zipped OME-Zarr, or a vendor's format whose
        reader is installed. The content determines the format; the name only if the content is ambiguous.
    limits
        The largest image to accept, checked by the header before pixels are read.
    name
        What to call the image in messages, such as the name of an uploaded file; the path, or ``"the image"`` for
        bytes.
    alone
        Whether the file is untrusted: its OME metadata may then not refer to other files, and codecs without a size
        limit are decoded in a limited process or refused.
    selection
        The selected part; ``each`` is handled by the caller (:attr:`Selection.each`), except for ``series``, which must
        name one.
    labels
        Whether it is a label image: stored values are then used, whatever their display colours, and a file with a
        lossy codec is refused.

    Returns
    -------
    Image
        With axes, channel names and pixel size from the file, and warnings about what was assumed or omitted.

    Raises
    ------
    MissingFileError
        When there is no such file.
    UnreadableImageError
        When it is not an image, is truncated or damaged, has a format without an installed reader, or contains several
        images and none is chosen.
    AxesError
        When it has axes beyond ``TCZYX``, or lacks what is selected.
    ImageTooLargeError
        When the header declares more than `limits` allow.
    ImageError
        When the image is empty or holds no numbers.
    """
    if labels:
        refuse_lossy(Path(source) if isinstance(source, str) else source, name or _label(source))
    return _read(source, limits or Limits(), name, alone, selection, labels)


def read_apart(path: Path, limits: Limits, name: str, selection: Selection, labels: bool) -> Image:
    """Read an untrusted file in this limited process; otherwise as :func:`read_image`."""
    if labels:
        refuse_lossy(path, name)
    return _read(path, limits, name, True, selection, labels, apart=True)


def _label(source: str | Path | bytes) -> str:
    return "the image" if isinstance(source, bytes) else str(source)


def _read(
    source: str | Path | bytes,
    limits: Limits,
    name: str | None,
    alone: bool,
    selection: Selection,
    labels: bool,
    *,
    apart: bool = False,
) -> Image:
    if isinstance(source, bytes):
        return _read_bytes(source, name or "the image", limits, selection, labels)
    path = Path(source)
    label = name or str(path)
    start = _start_of(path, label)
    if start is None:
        return _read_zarr(path, label, limits, selection, labels, alone=alone and not apart)
    if start.startswith(TIFF_STARTS):
        return _read_tiff(path, label, limits, selection, labels, alone=alone, apart=apart)
    if is_picture(start):
        with reading(label):
            return choose(_read_picture(path.read_bytes(), label, limits, selection, labels), selection)
    if start.startswith(ZIP_STARTS):
        return read_upload(path.read_bytes(), label, limits, selection, labels)
    if not start or path.suffix.lower() in _KNOWN_SUFFIXES:
        raise unknown_format(label, start)
    return read_vendor(path, label, limits, selection, alone=alone)


def _start_of(path: Path, label: str) -> bytes | None:
    """Return the first bytes of a file; None for a folder."""
    if not path.exists():
        raise MissingFileError(f"expected a file at {label}, found none", hint="check the path")
    if path.is_dir():
        return None
    with reading(label), path.open("rb") as file:
        return file.read(16)


def list_series(
    source: str | Path | bytes, *, limits: Limits | None = None, name: str | None = None, alone: bool = False
) -> tuple[SeriesInfo, ...]:
    """List the images in a file, including thumbnails and reduced copies.

    Parameters
    ----------
    source, limits, name, alone
        As for :func:`read_image`.

    Returns
    -------
    tuple of SeriesInfo
        At least one; their order gives their numbers.

    Raises
    ------
    CytorayError
        As :func:`read_image` raises them.
    """
    limits = limits or Limits()
    label = name or ("the image" if isinstance(source, bytes) else str(source))
    path = None if isinstance(source, bytes) else Path(source)
    start = source[:16] if isinstance(source, bytes) else _start_of(Path(source), label)
    if start is None:
        with reading(label):
            return list_zarr(path, label)
    if start.startswith(TIFF_STARTS):
        given = source if isinstance(source, bytes) else Path(source)
        with reading(label), opened_tiff(given, limits, label, alone=alone) as (file, _):
            found = list_tiff_series(file, label, limits, folder=_folder(given, alone))
        return tuple(one.info for one in found)
    if start.startswith(ZIP_STARTS):
        with reading(label):
            return list_in(source if isinstance(source, bytes) else Path(source).read_bytes(), limits, label)
    if path is not None and not is_picture(start):
        reader = open_vendor(path, label, alone=alone)
        with reading(label):
            return scenes_of(reader)
    image = read_image(source, limits=Limits(frames=limits.frames, files=limits.files), name=name, alone=alone)
    return (SeriesInfo("", image.axes, image.shape),)


def declared_size(source: str | Path | bytes, *, limits: Limits | None = None, name: str | None = None) -> Declared:
    """Return the content of an image header; no pixel is decoded.

    For TIFF, PNG and JPEG this takes a fraction of a millisecond, for zipped OME-Zarr a little more, and for the bytes
    of vendors' formats, whose readers run in a separate process, some seconds.

    Parameters
    ----------
    source, limits, name
        As for :func:`read_image`; of the limits only ``frames`` and ``files`` are checked, those that bound the
        header itself. Of a file of several images it is the largest.

    Raises
    ------
    CytorayError
        As :func:`read_image` raises them, for headers that are damaged or declare what the bytes cannot hold.
    """
    limits = limits or Limits()
    label = name or ("the image" if isinstance(source, bytes) else str(source))
    start = source[:16] if isinstance(source, bytes) else _start_of(Path(source), label)
    if start is not None and start.startswith(TIFF_STARTS):
        given = source if isinstance(source, bytes) else Path(source)
        with reading(label), opened_tiff(given, limits, label, alone=True) as (file, _):
            series = max(
                list_tiff_series(file, label, limits, folder=None), key=lambda one: np.prod(one.info.shape, dtype=float)
            )
            check_bytes_present(file, series, label)
            axes = resolve_axes(series.info.axes, series.info.shape, label)
        return Declared(axes, series.info.shape, series.dtype)
    if not isinstance(source, bytes):
        only_header = Limits(frames=limits.frames, files=limits.files)
        image = read_image(source, limits=only_header, name=name, alone=True)
        return Declared(image.axes, image.shape, image.dtype)
    if is_picture(source):
        with reading(label):
            return _check_picture(picture_header(io.BytesIO(source)), len(source), Limits(), label)
    if needs_file(source, label):
        return declared_in_upload(source, label, limits)
    raise unknown_format(label, source)


def read_zarr(
    store: Any,
    *,
    limits: Limits | None = None,
    name: str,
    alone: bool = False,
    selection: Selection = EVERYTHING,
    labels: bool = False,
) -> Image:
    """Read an OME-Zarr image from any zarr store; chunks are decoded when they are asked for.

    Parameters
    ----------
    store
        A zarr store, or the path of a folder.
    limits
        The largest image to accept.
    name
        What to call the image in messages.
    alone
        Whether it is untrusted: codecs with unknown decoded size are then refused.
    selection, labels
        As for :func:`read_image`.

    Raises
    ------
    CytorayError
        As :func:`read_image` raises them.
    """
    limits = limits or Limits()
    return choose(_read_level(store, 0, limits, name, alone, selection, labels)[0], selection)


def read_levels(store: Any, *, limits: Limits, name: str, alone: bool, selection: Selection) -> tuple[Image, ...]:
    """Read all levels of an OME-Zarr image, the largest first; see :func:`read_zarr`."""
    first, count = _read_level(store, 0, limits, name, alone, selection, labels=False)
    rest = [_read_level(store, level, limits, name, alone, selection, labels=False)[0] for level in range(1, count)]
    return tuple(choose(image, selection) for image in (first, *rest))


def _read_level(
    store: Any, level: int, limits: Limits, name: str, alone: bool, selection: Selection, labels: bool
) -> tuple[Image, int]:
    """Return a level, and the number of levels."""
    with reading(name):
        pixels = open_zarr(
            store,
            name,
            series=selection.series,
            level=level,
            labels=labels,
            alone=alone,
            chunk_bytes=limits.chunk_bytes,
        )
        axes = resolve_axes(pixels.axes, pixels.array.shape, name)
    check_declared(axes, pixels.array.shape, pixels.array.dtype, limits, name)
    image = arrange(pixels.array, pixels.axes, pixels.channels, pixels.pixel_size, name, warnings=pixels.warnings)
    return image, pixels.levels


def _read_bytes(data: bytes, label: str, limits: Limits, selection: Selection, labels: bool) -> Image:
    if data.startswith(TIFF_STARTS):
        return _read_tiff(data, label, limits, selection, labels, alone=True)
    if is_picture(data):
        with reading(label):
            return choose(_read_picture(data, label, limits, selection, labels), selection)
    if needs_file(data, label):
        return read_upload(data, label, limits, selection, labels)
    raise unknown_format(label, data)


def _folder(source: bytes | Path, alone: bool) -> Path | None:
    return None if alone or isinstance(source, bytes) else source.parent


def _read_tiff(
    source: bytes | Path,
    label: str,
    limits: Limits,
    selection: Selection,
    labels: bool,
    *,
    alone: bool,
    apart: bool = False,
) -> Image:
    with reading(label), opened_tiff(source, limits, label, alone=alone) as (file, lost):
        found = list_tiff_series(file, label, limits, folder=_folder(source, alone))
        index, chosen = choose_series([one.info for one in found], selection.series, label)
        series = found[index]
        axes = resolve_axes(series.info.axes, series.info.shape, label)
        colours = tiff_colours(series.keyframe, label, labels=labels, imagej=bool(file.is_imagej))
        check_bytes_present(file, series, label)
        check_declared(axes, series.info.shape, series.dtype, limits, label)
        if alone and not apart and not is_bounded(source, series):
            if isinstance(source, Path):
                most = min(limits.decoded_bytes or _MOST_APART, _MOST_APART)
                require_decodable_apart(source, series, most, label)
                source, limits = source.read_bytes(), replace(limits, decoded_bytes=most)
            return read_upload(source, label, limits, selection, labels)
        if isinstance(source, bytes):
            check_segments(file, series, label)
        pixels: Any = TiffPixels.of(source, series, label, alone=alone)
        if isinstance(source, bytes) and len(series.pages) == 1:  # to open it again would take as long as to decode it
            pixels = pixels.read_from(file, (slice(None),) * len(series.info.shape))
    image = arrange_samples(
        pixels, series.info.axes, colours, series.channels, series.pixel_size, label, series.warnings + lost + chosen
    )
    return choose(replace(image, guessed_axes=series.guessed_axes), selection)


def _read_picture(data: bytes, label: str, limits: Limits, selection: Selection, labels: bool) -> Image:
    header = picture_header(io.BytesIO(data))
    choose_series([SeriesInfo("", "YX", header.shape[:2])], selection.series, label)  # there is only one to choose
    _check_picture(header, len(data), limits, label)
    pixels, colours = decode_picture(data, header, labels=labels)
    others = frames_left_out(data)
    warnings: Warnings = ()
    if others:
        sentence = f"{label} contains {others + 1} pictures; the first one was used, {others} omitted"
        warnings = (AnswerWarning("frames-left-out", sentence),)
    return arrange_samples(pixels, "YXS"[: pixels.ndim], colours, None, {}, label, warnings)


def _read_zarr(path: Path, label: str, limits: Limits, selection: Selection, labels: bool, *, alone: bool) -> Image:
    if not any((path / file).exists() for file in _ZARR_FILES):
        raise UnreadableImageError(
            f"expected an image file or an OME-Zarr folder, got the folder {label}",
            hint="use a single image file, or an OME-Zarr folder (its name usually ends in .ome.zarr)",
        )
    return read_zarr(path, limits=limits, name=label, alone=alone, selection=selection, labels=labels)


def _check_picture(header: PictureHeader, length: int, limits: Limits, label: str) -> Declared:
    dtype = np.dtype(np.uint16 if header.bits == 16 else np.uint8)
    pictures = replace(limits, pixels=min(limits.pixels, LARGEST_PICTURE))
    declared = check_declared("YXS", header.shape, dtype, pictures, label)
    if not header.fits(length):
        size = " × ".join(str(side) for side in header.shape)
        raise UnreadableImageError(
            f"{label} declares {size} samples, far more than its {length} bytes can contain",
            field="bytes",
            hint="the file is truncated; copy or export it again",
        )
    return declared
