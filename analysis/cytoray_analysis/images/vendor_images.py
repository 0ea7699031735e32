"""Images in formats of microscope vendors, read with bioio."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

from cytoray_analysis.errors import UnreadableImageError
from cytoray_analysis.images.arrange import arrange
from cytoray_analysis.images.axes import COLOURS, SPATIAL_AXES, micrometres, resolve_axes
from cytoray_analysis.images.choose import choose
from cytoray_analysis.images.czi import name_scenes
from cytoray_analysis.images.damage import reading
from cytoray_analysis.images.image import Image
from cytoray_analysis.images.limits import Limits, check_declared
from cytoray_analysis.images.series import SeriesInfo, choose_series
from cytoray_analysis.images.vendor_formats import format_of, reader_module
from cytoray_analysis.selection import Selection

_FORMATS = (
    "known formats: TIFF, OME-TIFF, OME-Zarr (also zipped), PNG, JPEG; "
    "CZI, ND2 and LIF with pip install 'cytoray[formats]'"
)


def open_vendor(path: Path, label: str, *, alone: bool) -> Any:
    """Open a vendor's format: with its own reader, or for trusted files with any reader that bioio finds."""
    from bioio_base.exceptions import UnsupportedFileFormatError

    with path.open("rb") as file:
        found = format_of(file.read(128), path.name)
    if found is None and alone:
        raise unknown_format(label, path.read_bytes()[:16])
    try:
        with reading(label):
            if found is not None:
                reader = reader_module(found, label).Reader(path)
                if found.name == "CZI":
                    name_scenes(reader, label)
                return reader
            from bioio import BioImage

            return BioImage(path).reader
    except UnsupportedFileFormatError as error:
        if found is not None:
            raise UnreadableImageError(
                f"expected a valid {found.name} file, but its reader cannot read {label}",
                hint="the file is damaged or truncated; copy or export it again",
            ) from error
        raise UnreadableImageError(f"{label}: no installed reader supports this format", hint=_FORMATS) from error


def scenes_of(reader: Any) -> tuple[SeriesInfo, ...]:
    """List the images of an opened file."""
    found = []
    for index, scene in enumerate(reader.scenes):
        reader.set_scene(index)
        found.append(SeriesInfo(str(scene), _letters(reader.dims.order), tuple(map(int, reader.dims.shape))))
    return tuple(found)


def read_vendor(path: Path, label: str, limits: Limits, selection: Selection, *, alone: bool) -> Image:
    """Read an image in a vendor's format; its pixels are decoded on access."""
    reader = open_vendor(path, label, alone=alone)
    with reading(label):
        chosen, warnings = choose_series(scenes_of(reader), selection.series, label)
        reader.set_scene(chosen)
        array = reader.xarray_dask_data
        letters, names = _letters(array.dims), reader.channel_names
        scale = reader.physical_pixel_sizes
    check_declared(resolve_axes(letters, array.shape, label), array.shape, array.dtype, limits, label)
    pixel_size = {axis: micrometres(getattr(scale, axis), "µm") for axis in SPATIAL_AXES}
    if dict(zip(letters, array.shape, strict=True)).get("S") == 3:
        names = COLOURS
    return choose(arrange(array.data, letters, names, pixel_size, label, warnings=warnings), selection)


def _letters(dims: Iterable[Hashable]) -> str:
    return "".join(str(letter) for letter in dims)


def unknown_format(label: str, start: bytes) -> UnreadableImageError:
    """Return the error for a file that no reader knows, from its first bytes."""
    what = "is empty" if not start else f"starts with {start[:8]!r}"
    return UnreadableImageError(f"expected an image in a known format, got {label}, which {what}", hint=_FORMATS)
