"""Reading images: any format that bioio knows, the header checked before the pixels.

Files go through bioio's readers, chosen by what the file holds instead of by trying each (which costs 8 ms more an
image). The exceptions, measured on one megapixel:

- TIFF bytes in memory (the serving path) are decoded by tifffile directly, the library beneath bioio's readers: 0.3 to
  5 ms instead of 7 to 15, and hostile metadata can name no other file or schema to fetch;
- PNG and JPEG are decoded directly, because bioio's reader believes the file's name, decodes twice, and reduces
  16-bit colour to 8 bits;
- of TIFF files with huge planes only the tiles asked for are decoded, where bioio decodes whole planes.

Pixel sizes of TIFF files are read here too, because bioio's readers ignore the unit.
"""

from __future__ import annotations

import io
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cytoray_analysis.errors import (
    AxesError,
    MissingFileError,
    UnreadableImageError,
)
from cytoray_analysis.images.archive import ZIP_STARTS
from cytoray_analysis.images.axes import (
    AXES,
    SPATIAL_AXES,
    channel_names,
    known_pixel_size,
    micrometres,
    resolve_axes,
)
from cytoray_analysis.images.damage import reading
from cytoray_analysis.images.image import AxisView, Image, image_from_array
from cytoray_analysis.images.limits import Declared, Limits, check_declared
from cytoray_analysis.images.ome_zarr import open_zarr
from cytoray_analysis.images.picture import (
    LARGEST_PICTURE,
    PictureHeader,
    decode_picture,
    is_picture,
    picture_header,
)
from cytoray_analysis.images.tiff import TiffPixels, check_segments, open_stranger, open_tiff, tiff_header
from cytoray_analysis.images.uploads import declared_in_upload, format_of, needs_file, read_upload, reader_module

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Formats told by their first bytes: a file of such a name that does not start like one is not worth a second try.
_KNOWN_SUFFIXES = {".tif", ".tiff", ".png", ".jpg", ".jpeg", ".zarr", ".txt", ".csv"}
_FORMATS = (
    "known formats: TIFF, OME-TIFF, OME-Zarr (zipped, too), PNG, JPEG; "
    "CZI, ND2 and LIF with pip install 'cytoray[formats]'"
)
_LARGE_PLANE_BYTES = 2**26
_ZARR_FILES = ("zarr.json", ".zgroup", ".zattrs", ".zarray")


def read_image(
    source: str | Path | bytes, *, limits: Limits | None = None, name: str | None = None, alone: bool = False
) -> Image:
    """Read an image; the pixels of files are decoded lazily, those of bytes at once.

    Axes of length one other than ``Y`` and ``X`` are dropped, whatever the format stores, so that the same image has
    the same axes in every format; :meth:`Image.select` adds them back. The transparency of colour pictures is
    dropped: it says what to show, not what was measured.

    Parameters
    ----------
    source
        A file, an OME-Zarr folder, or the bytes of a file: TIFF, PNG, JPEG, zipped OME-Zarr, or a vendor's format whose
        reader is installed. The content decides the format; the name only where the content does not tell.
    limits
        The largest image to accept, checked by the header before pixels are read.
    name
        What to call the image in messages, such as the name of an uploaded file; the path, or ``"the image"`` for
        bytes.
    alone
        Whether the file comes from a stranger: OME metadata in it may then not name other files to be opened.

    Returns
    -------
    Image
        With axes, channel names and pixel size as far as the file gives them.

    Raises
    ------
    MissingFileError
        When there is no such file.
    UnreadableImageError
        When it is no image, is truncated or damaged, or has a format that no installed reader knows.
    AxesError
        When it has axes beyond ``TCZYX``.
    ImageTooLargeError
        When the header declares more than `limits` allow.
    ImageError
        When the image is empty or holds no numbers.
    """
    limits = limits or Limits()
    if isinstance(source, bytes):
        return _read_bytes(source, name or "the image", limits)
    path = Path(source)
    label = name or str(path)
    if not path.exists():
        raise MissingFileError(f"{label} does not exist", hint="check the path")
    if path.is_dir():
        return _read_zarr(path, label, limits)
    with reading(label), path.open("rb") as file:
        start = file.read(16)
    if start.startswith(_TIFF_STARTS):
        return _read_tiff(path, label, limits, alone)
    if is_picture(start):
        with reading(label), path.open("rb") as file:
            _check_picture(picture_header(file), path.stat().st_size, limits, label)
            return _read_bytes(path.read_bytes(), label, limits)
    if start.startswith(ZIP_STARTS):
        return read_upload(path.read_bytes(), label, limits)
    if not start or path.suffix.lower() in _KNOWN_SUFFIXES:
        raise _unknown_format(label, start)
    return _read_other(path, label, limits, alone)


def declared_size(source: str | Path | bytes, *, limits: Limits | None = None, name: str | None = None) -> Declared:
    """Return what the header of an image declares; no pixel is decoded.

    Of TIFF, PNG and JPEG this takes a fraction of a millisecond, of zipped OME-Zarr a little more, of the bytes of
    vendors' formats, whose readers run in a process of their own, some seconds.

    Parameters
    ----------
    source, limits, name
        As for :func:`read_image`; of the limits only ``frames`` and ``files`` are checked, those that bound the
        header itself.

    Raises
    ------
    CytorayError
        As :func:`read_image` raises them, for headers that are damaged or declare what the bytes cannot hold.
    """
    limits = limits or Limits()
    if not isinstance(source, bytes):
        only_header = Limits(frames=limits.frames, files=limits.files)
        image = read_image(source, limits=only_header, name=name, alone=True)
        return Declared(image.axes, image.shape, image.dtype)
    label = name or "the image"
    if source.startswith(_TIFF_STARTS):
        with reading(label), open_stranger(source, limits, label) as file:
            header = tiff_header(file, label)
        return Declared(header.axes, header.shape, header.dtype)
    if is_picture(source):
        with reading(label):
            return _check_picture(picture_header(io.BytesIO(source)), len(source), Limits(), label)
    if needs_file(source, label):
        return declared_in_upload(source, label, limits)
    raise _unknown_format(label, source)


def read_zarr(store: Any, *, limits: Limits | None = None, name: str) -> Image:
    """Read an OME-Zarr image from any zarr store; chunks are decoded when they are asked for.

    Parameters
    ----------
    store
        A zarr store, or the path of a folder.
    limits
        The largest image to accept.
    name
        What to call the image in messages.

    Raises
    ------
    CytorayError
        As :func:`read_image` raises them.
    """
    with reading(name):
        pixels = open_zarr(store, name)
        array = pixels.array
        axes = resolve_axes(pixels.axes, array.shape, name)
    check_declared(axes, array.shape, array.dtype, limits or Limits(), name)
    return _assemble(array, pixels.axes, pixels.channels, pixels.pixel_size, name)


def _read_bytes(data: bytes, label: str, limits: Limits) -> Image:
    if data.startswith(_TIFF_STARTS):
        with reading(label), open_stranger(data, limits, label) as file:
            header = tiff_header(file, label)
            check_declared(header.axes, header.shape, header.dtype, limits, label)
            check_segments(file, label)
            pixels = file.series[0].asarray()
            if pixels.shape != header.shape:
                raise ValueError(f"the header declares {header.shape}, the pixels decode to {pixels.shape}")
        return _assemble(pixels, header.axes, header.channels, header.pixel_size, label, alpha=header.alpha)
    if is_picture(data):
        with reading(label):
            picture = picture_header(io.BytesIO(data))
            _check_picture(picture, len(data), limits, label)
            pixels = decode_picture(data)
        return _assemble(pixels, "YXS"[: pixels.ndim], None, {}, label, alpha=_has_alpha(picture, pixels))
    if needs_file(data, label):
        return read_upload(data, label, limits)
    raise _unknown_format(label, data)


def _read_tiff(path: Path, label: str, limits: Limits, alone: bool) -> Image:
    with reading(label), open_stranger(path, limits, label) if alone else open_tiff(path) as file:
        header = tiff_header(file, label)
    check_declared(header.axes, header.shape, header.dtype, limits, label)
    if alone or header.plane_bytes > _LARGE_PLANE_BYTES:
        pixels: Any = TiffPixels(path, header.shape, header.dtype, alone)
        return _assemble(pixels, header.axes, header.channels, header.pixel_size, label, alpha=header.alpha)
    from bioio_base.exceptions import UnsupportedFileFormatError

    with reading(label, known=(UnsupportedFileFormatError,)):
        from bioio_ome_tiff import Reader as OmeTiffReader
        from bioio_tifffile import Reader as TiffReader  # type: ignore[import-untyped]

        reader = OmeTiffReader(path) if header.is_ome else TiffReader(path)
        array = reader.xarray_dask_data
        letters, names = _letters(array.dims), reader.channel_names
    return _assemble(array.data, letters, names, header.pixel_size, label, alpha=header.alpha)


def _read_zarr(path: Path, label: str, limits: Limits) -> Image:
    if not any((path / file).exists() for file in _ZARR_FILES):
        raise UnreadableImageError(
            f"{label} is a folder, and not one in OME-Zarr format",
            hint="give a single image file, or an OME-Zarr folder (its name usually ends in .ome.zarr)",
        )
    return read_zarr(path, limits=limits, name=label)


def _read_other(path: Path, label: str, limits: Limits, alone: bool) -> Image:
    """Read a vendor's format: with the reader of its own, or of files that are trusted with any that bioio finds."""
    from bioio_base.exceptions import UnsupportedFileFormatError

    with path.open("rb") as file:
        found = format_of(file.read(128), path.name)
    if found is None and alone:
        raise _unknown_format(label, path.read_bytes()[:16])
    try:
        with reading(label):
            if found is not None:
                reader = reader_module(found, label).Reader(path)
            else:
                from bioio import BioImage

                reader = BioImage(path).reader
            array = reader.xarray_dask_data
            letters, names = _letters(array.dims), reader.channel_names
            scale = reader.physical_pixel_sizes
    except UnsupportedFileFormatError as error:
        if found is not None:
            raise UnreadableImageError(
                f"{label} is no {found.name} file that its reader can read",
                hint="the file is damaged or truncated; copy or export it again",
            ) from error
        raise UnreadableImageError(f"{label}: no installed reader knows this format", hint=_FORMATS) from error
    check_declared(resolve_axes(letters, array.shape, label), array.shape, array.dtype, limits, label)
    pixel_size = {axis: micrometres(getattr(scale, axis), "µm") for axis in SPATIAL_AXES}
    return _assemble(array.data, letters, names, pixel_size, label)


def _assemble(
    pixels: Any,
    letters: str,
    names: Sequence[str] | None,
    pixel_size: Mapping[str, float | None],
    label: str,
    *,
    alpha: bool = False,
) -> Image:
    """Arrange a stored array as an image: known axes in the one order, samples as channels, no axes of length one."""
    shape = tuple(int(length) for length in pixels.shape)
    letters = resolve_axes(letters, shape, label)
    sizes = dict(zip(letters, shape, strict=True))
    colour = sizes.get("S", 1) > 1
    if colour and sizes.get("C", 1) > 1:
        raise AxesError(
            f"{label} has {sizes['C']} channels of {sizes['S']} samples each; expected one or the other",
            hint="save each channel as grey",
        )
    channel_letter = "S" if colour else "C"
    samples = sizes.get(channel_letter, 1) - (1 if alpha and colour else 0)
    stored = {
        axis: letters.index(channel_letter if axis == "C" else axis) for axis in AXES if _kept(axis, sizes, samples)
    }
    keep = tuple(
        slice(0, samples) if axis == stored.get("C") else slice(None) if axis in stored.values() else 0
        for axis in range(len(shape))
    )
    axes = "".join(stored)
    if keep == (slice(None),) * len(shape) and list(stored.values()) == sorted(stored.values()):
        view: Any = pixels
    else:
        view = AxisView(pixels, keep, tuple(stored.values()))
        if isinstance(pixels, np.ndarray):
            view = view[(slice(None),) * len(axes)]
    return image_from_array(
        view,
        axes,
        channels=channel_names(names, samples, samples=colour),
        pixel_size=known_pixel_size(pixel_size, axes),
        source=label,
    )


def _kept(axis: str, sizes: Mapping[str, int], channels: int) -> bool:
    return axis in "YX" or (channels > 1 if axis == "C" else sizes.get(axis, 1) > 1)


def _has_alpha(header: PictureHeader, pixels: Any) -> bool:
    """Whether decoded pixels end in transparency; palettes may gain it only when decoded."""
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    return samples == header.shape[2] + 1 or (header.alpha and samples == header.shape[2])


def _check_picture(header: PictureHeader, length: int, limits: Limits, label: str) -> Declared:
    dtype = np.dtype(np.uint16 if header.bits == 16 else np.uint8)
    pictures = replace(limits, pixels=min(limits.pixels, LARGEST_PICTURE))
    declared = check_declared("YXS", header.shape, dtype, pictures, label)
    if not header.fits(length):
        size = " × ".join(str(side) for side in header.shape)
        raise UnreadableImageError(
            f"{label} declares {size} samples, far more than its {length} bytes can hold",
            field="bytes",
            hint="the file is truncated; copy or export it again",
        )
    return declared


def _letters(dims: Iterable[Hashable]) -> str:
    return "".join(str(letter) for letter in dims)


def _unit_name(unit: Any) -> str | None:
    return None if unit is None else str(unit)


def _unknown_format(label: str, start: bytes) -> UnreadableImageError:
    what = "is empty" if not start else f"starts with {start[:8]!r}"
    return UnreadableImageError(f"{label} is not an image in a known format: it {what}", hint=_FORMATS)
