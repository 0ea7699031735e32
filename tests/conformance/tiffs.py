"""Layouts of TIFF files without OME metadata: types, byte orders, codecs, pages, ImageJ, resolution, several images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from conformance.handmade import SHORT, packed_bits, page, tiff_of
from conformance.layout import COLOUR, CYX, DEEP, GREY, HYPER, MOVIE, RGB, STACK, TWO, Layout, of_bytes, picture
from cytoray_analysis.selection import Selection

_FACTS = ("channels", "pixel_size", "warnings", "tolerance", "other_file", "selection", "apart")


def tiff(array: NDArray[Any], expected: NDArray[Any], axes: str, *, suffix: str = ".tif", **options: Any) -> Layout:
    """Return the layout of an array that tifffile writes with these options."""
    facts = {key: options.pop(key) for key in _FACTS if key in options}

    def write(folder: Path) -> Path:
        path = folder / f"image{suffix}"
        tifffile.imwrite(path, array, **options)
        return path

    return Layout(write, expected, axes, **facts)


TIFFS: dict[str, Layout] = {}
for _dtype in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"):
    _array = picture(dtype=_dtype)
    TIFFS[f"{_dtype}"] = tiff(_array, _array, "YX")
    if np.dtype(_dtype).itemsize > 1:
        TIFFS[f"{_dtype} big endian"] = tiff(_array, _array, "YX", byteorder=">")
_BITS = picture(dtype="bool")
TIFFS |= {
    "float16": tiff(picture(dtype="float16"), picture(dtype="float16"), "YX"),
    "one bit": tiff(_BITS, _BITS, "YX", photometric="minisblack"),
    "one bit min is white": tiff(_BITS, ~_BITS, "YX", photometric="miniswhite"),
    "BigTIFF": tiff(DEEP, DEEP, "YX", bigtiff=True),
    "BigTIFF big endian": tiff(DEEP, DEEP, "YX", bigtiff=True, byteorder=">"),
    "many strips": tiff(DEEP, DEEP, "YX", rowsperstrip=3),
    "tiles": tiff(DEEP, DEEP, "YX", tile=(16, 16)),
    "tiles larger than the image": tiff(DEEP, DEEP, "YX", tile=(64, 64)),
}
_UNBOUNDED = ("lerc", "png", "jpegxl")
for _codec in ("zlib", "adobe_deflate", "lzw", "zstd", "lzma", "packbits", *_UNBOUNDED):
    TIFFS[f"codec {_codec}"] = tiff(GREY, GREY, "YX", compression=_codec, apart=_codec in _UNBOUNDED)
_LOSSLESS: dict[str, Any] = {"compressionargs": {"lossless": True}, "channels": RGB, "apart": True}
_FLOATS = picture(dtype="float32")
TIFFS |= {
    "codec webp": tiff(COLOUR, CYX, "CYX", compression="webp", **_LOSSLESS),
    "codec jpeg": tiff(GREY, GREY, "YX", compression="jpeg", compressionargs={"level": 98}, tolerance=12),
    "codec jpeg 2000": tiff(DEEP, DEEP, "YX", compression="jpeg2000", compressionargs={"level": 0}, apart=True),
    "predictor horizontal": tiff(DEEP, DEEP, "YX", compression="zlib", predictor=True),
    "predictor floating point": tiff(_FLOATS, _FLOATS, "YX", compression="zlib", predictor=3),
    "pages": tiff(STACK, STACK, "ZYX", metadata=None),
    "pages with named axes": tiff(TWO, TWO, "CYX", metadata={"axes": "CYX"}),
    "movie with named axes": tiff(MOVIE, MOVIE, "TYX", metadata={"axes": "TYX"}),
    "one page with axes of length one": tiff(DEEP[None, None], DEEP, "YX", metadata={"axes": "TZYX"}),
    "pages with their own bit order": of_bytes(
        ".tif",
        lambda: tiff_of(
            [
                (page(_BITS.shape, 1), [packed_bits(_BITS)]),
                (page(_BITS.shape, 1, t266=(SHORT, [2])), [packed_bits(_BITS[::-1], last_first=True)]),
            ]
        ),
        np.stack([_BITS, _BITS[::-1]]),
        "ZYX",
    ),
    "a tag of orientation": tiff(GREY, GREY, "YX", metadata=None, extratags=[(274, 3, 1, 6, True)]),
    "a description that is no XML": tiff(
        GREY,
        GREY,
        "YX",
        description="made by hand </OME>",
        metadata=None,
        warnings=frozenset({"metadata-unreadable"}),
    ),
}

# ImageJ
LONG = np.tile(picture(seed=8)[None, :16, :16], (1500, 1, 1)) // np.arange(1, 4).repeat(500)[:, None, None].astype(
    np.uint8
)


def _long_movie(folder: Path) -> Path:
    path = folder / "image.tif"
    table = np.zeros((3, 256), np.uint16)
    table[1] = np.arange(256) * 257
    with tifffile.TiffWriter(path, imagej=True) as writer:
        writer.write(LONG, metadata={"axes": "TYX", "LUTs": [(table // 257).astype(np.uint8)]})
    return path


TIFFS |= {
    "ImageJ stack": tiff(STACK, STACK, "ZYX", imagej=True, metadata={"axes": "ZYX"}),
    "ImageJ movie": tiff(MOVIE, MOVIE, "TYX", imagej=True, metadata={"axes": "TYX"}),
    "ImageJ movie of one directory": tiff(
        MOVIE, MOVIE, "TYX", imagej=True, metadata={"axes": "TYX"}, contiguous=True, byteorder=">"
    ),
    "ImageJ hyperstack": tiff(
        np.moveaxis(HYPER, 1, 2),
        HYPER,
        "TCZYX",
        imagej=True,
        resolution=(2.0, 4.0),
        metadata={"axes": "TZCYX", "unit": "um", "spacing": 1.5},
        pixel_size={"Z": 1.5, "Y": 0.25, "X": 0.5},
    ),
    "ImageJ with slice labels": tiff(
        TWO,
        TWO,
        "CYX",
        imagej=True,
        metadata={"axes": "CYX", "Labels": ["c:1/2 - DNA", "actin"]},
        channels=("DNA", "actin"),
    ),
    "ImageJ in inches": tiff(GREY, GREY, "YX", imagej=True, resolution=(72, 72), metadata={"unit": "inch"}),
    "ImageJ escape of micro": tiff(
        GREY,
        GREY,
        "YX",
        imagej=True,
        resolution=(2.0, 2.0),
        metadata={"unit": "\\u00B5m"},
        pixel_size={"Y": 0.5, "X": 0.5},
    ),
    "ImageJ min is white": tiff(GREY, GREY, "YX", imagej=True, photometric="miniswhite"),
    "ImageJ movie of thousands of frames with a colour table": Layout(_long_movie, LONG, "TYX"),
}

# Resolution
_HALF = {"Y": 0.5, "X": 0.5}


def _resolution_of_type(dtype: int, value: Any) -> Layout:
    def write(folder: Path) -> Path:
        path = folder / "image.tif"
        tifffile.imwrite(path, GREY, resolution=(20_000, 20_000), resolutionunit="CENTIMETER", metadata=None)
        with tifffile.TiffFile(path, mode="r+") as file:
            for name in ("XResolution", "YResolution"):
                file.pages.first.tags[name].overwrite(value, dtype=dtype)
        return path

    return Layout(write, GREY, "YX", pixel_size=_HALF)


def _aperio(folder: Path) -> Path:
    path = folder / "image.svs"
    description = "Aperio Image Library v12.0.15\r\n56x40 [0,0 56x40] (16x16) none Q=70|AppMag = 20|MPP = 0.5"
    whole = COLOUR.repeat(4, 0).repeat(4, 1)
    grid: dict[str, Any] = {"photometric": "rgb", "metadata": None, "tile": (16, 16)}
    with tifffile.TiffWriter(path) as writer:
        writer.write(whole, description=description, **grid)
        writer.write(COLOUR[::2, ::2], photometric="rgb", metadata=None, description="Aperio Image Library v12.0.15")
        writer.write(COLOUR, description=description, **grid)
    return path


TIFFS |= {
    "resolution in centimetres": tiff(
        GREY, GREY, "YX", resolution=(20_000, 20_000), resolutionunit="CENTIMETER", pixel_size=_HALF
    ),
    "resolution as FLOAT": _resolution_of_type(11, 20_000.0),
    "resolution as DOUBLE": _resolution_of_type(12, 20_000.0),
    "resolution as SHORT": _resolution_of_type(3, 20_000),
    "resolution as LONG": _resolution_of_type(4, 20_000),
    "dots per inch": tiff(GREY, GREY, "YX", resolution=(300, 300), resolutionunit="INCH"),
    "Aperio with its MPP": Layout(_aperio, CYX.repeat(4, 1).repeat(4, 2), "CYX", channels=RGB, pixel_size=_HALF),
}


# Several images
def _thumbnail(folder: Path) -> Path:
    path = folder / "image.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(DEEP[::8, ::8], metadata=None)
        writer.write(DEEP, metadata=None)
    return path


def _mixed_pages(folder: Path) -> Path:
    path = folder / "image.tif"
    with tifffile.TiffWriter(path) as writer:
        for number, plane in enumerate(STACK):
            writer.write(plane, metadata=None, compression="zlib" if number % 2 else None, rowsperstrip=8 + number)
    return path


def _pyramid(folder: Path) -> Path:
    path = folder / "image.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(DEEP, subifds=1, tile=(16, 16), metadata=None)
        writer.write(DEEP[::2, ::2], subfiletype=1, tile=(16, 16), metadata=None)
    return path


def _two_images(folder: Path) -> Path:
    path = folder / "image.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(GREY, metadata=None)
        writer.write(DEEP[:, ::-1], metadata=None)
    return path


TIFFS |= {
    "pages that are compressed in different ways": Layout(_mixed_pages, STACK, "ZYX"),
    "a thumbnail first": Layout(_thumbnail, DEEP, "YX", warnings=frozenset({"series-chosen"})),
    "a pyramid": Layout(_pyramid, DEEP, "YX"),
    "two images, the second chosen": Layout(_two_images, DEEP[:, ::-1], "YX", selection=Selection(series="1")),
}
