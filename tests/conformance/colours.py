"""Layouts of TIFF files in colour: planar and chunky, alpha, palettes, inverted grey, other colour spaces."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

from conformance.handmade import SHORT, packed_nibbles, page, tiff_of
from conformance.layout import COLOUR, CYX, DEEP, GREY, RGB, Layout, X, Y, of_bytes
from conformance.tiffs import tiff


def palette(*, ramp: bool, entries: int = 256, factor: int = 257) -> NDArray[Any]:
    """Return a colour table (3, entries) as TIFF has it: one ramp of green, or colours without an order."""
    table = np.zeros((3, entries), np.uint16)
    if ramp:
        table[1] = np.arange(entries) * (65_535 // (entries - 1))
    else:
        table[:] = np.random.default_rng(3).integers(0, 256, (3, entries)) * factor
    return table


COLOURS_OF_TABLE = (palette(ramp=False) // 257).astype(np.uint8)
CMYK = np.dstack([COLOUR, GREY // 2])


def _of_cmyk() -> NDArray[Any]:
    ink = CMYK.astype(float) / 255
    return np.asarray(np.moveaxis(((1 - ink[..., :3]) * (1 - ink[..., 3:]) * 255).round(), -1, 0).astype(np.uint8))


def _ycbcr(colour: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(Picture.fromarray(colour, "RGB").convert("YCbCr"))


def _slopes() -> NDArray[Any]:
    """Return a picture without edges or noise, of which JPEG loses little."""
    rows, columns = np.mgrid[0:Y, 0:X]
    return np.stack([40 + rows * 4, 20 + columns * 3, 30 + rows + columns * 2], axis=-1).astype(np.uint8)


_SMOOTH = _slopes()


_TABLE_16 = np.random.default_rng(9).integers(0, 65_536, (3, 65_536)).astype(np.uint16)
_FEW = (GREY // 16).astype(np.uint8)
_TABLE_4 = palette(ramp=False, entries=16)
_DEEP_COLOUR = COLOUR.astype(np.uint16) * 200
_MARKED = np.concatenate([CYX, GREY[None] // 2])
_NAMED = (*RGB, "channel 3")
_PAGES = np.stack([COLOUR, COLOUR[::-1]])
_CZYX = np.stack([CYX, CYX[:, ::-1]], axis=1)

TIFFS_IN_COLOUR: dict[str, Layout] = {
    "min is white": tiff(GREY, 255 - GREY, "YX", photometric="miniswhite"),
    "min is white 16 bit": tiff(DEEP, 65535 - DEEP, "YX", photometric="miniswhite"),
    "RGB chunky": tiff(COLOUR, CYX, "CYX", photometric="rgb", channels=RGB),
    "RGB planar": tiff(CYX, CYX, "CYX", photometric="rgb", planarconfig="separate", channels=RGB),
    "RGB 16 bit": tiff(_DEEP_COLOUR, np.moveaxis(_DEEP_COLOUR, -1, 0), "CYX", photometric="rgb", channels=RGB),
    "RGB with alpha": tiff(
        np.dstack([COLOUR, GREY]), CYX, "CYX", photometric="rgb", extrasamples=["unassalpha"], channels=RGB
    ),
    "RGB with alpha before a marker": tiff(
        np.dstack([COLOUR, GREY, GREY // 2]),
        _MARKED,
        "CYX",
        photometric="rgb",
        extrasamples=["unassalpha", "unspecified"],
        channels=_NAMED,
    ),
    "RGB planar with alpha": tiff(
        np.concatenate([CYX, GREY[None]]),
        CYX,
        "CYX",
        photometric="rgb",
        planarconfig="separate",
        extrasamples=["assocalpha"],
        channels=RGB,
    ),
    "RGB planar with alpha before a marker": tiff(
        np.concatenate([CYX, GREY[None], GREY[None] // 2]),
        _MARKED,
        "CYX",
        photometric="rgb",
        planarconfig="separate",
        extrasamples=["unassalpha", "unspecified"],
        channels=_NAMED,
    ),
    "grey with alpha": tiff(
        np.dstack([GREY, 255 - GREY]),
        GREY,
        "YX",
        photometric="minisblack",
        planarconfig="contig",
        extrasamples=["assocalpha"],
    ),
    "grey planar with alpha between markers": tiff(
        np.stack([GREY, GREY // 2, 255 - GREY, GREY // 3]),
        np.stack([GREY, GREY // 2, GREY // 3]),
        "CYX",
        photometric="minisblack",
        planarconfig="separate",
        extrasamples=["unspecified", "assocalpha", "unspecified"],
    ),
    "grey saved as RGB": tiff(np.dstack([GREY] * 3), GREY, "YX", photometric="rgb"),
    "stack of RGB pages": tiff(_PAGES, _CZYX, "CZYX", photometric="rgb", channels=RGB),
    "stack of planar RGB pages": tiff(
        np.moveaxis(_PAGES, -1, 1), _CZYX, "CZYX", photometric="rgb", planarconfig="separate", channels=RGB
    ),
    "palette": tiff(
        GREY,
        COLOURS_OF_TABLE[:, GREY],
        "CYX",
        photometric="palette",
        colormap=palette(ramp=False),
        channels=RGB,
    ),
    "palette in steps of 256": tiff(
        GREY,
        COLOURS_OF_TABLE[:, GREY],
        "CYX",
        photometric="palette",
        colormap=palette(ramp=False, factor=256),
        channels=RGB,
    ),
    "palette of 16 bits": tiff(
        DEEP, _TABLE_16[:, DEEP], "CYX", photometric="palette", colormap=_TABLE_16, channels=RGB
    ),
    "palette of 4 bits": of_bytes(
        ".tif",
        lambda: tiff_of(
            [(page(_FEW.shape, 4, 3, t320=(SHORT, [int(one) for one in _TABLE_4.ravel()])), [packed_nibbles(_FEW)])]
        ),
        (_TABLE_4 // 257).astype(np.uint8)[:, _FEW],
        "CYX",
        channels=RGB,
    ),
    "palette of one ramp": tiff(GREY, GREY, "YX", photometric="palette", colormap=palette(ramp=True)),
    "CMYK": tiff(CMYK, _of_cmyk(), "CYX", photometric="separated", channels=RGB, tolerance=1),
    "YCbCr": tiff(_ycbcr(COLOUR), CYX, "CYX", photometric="ycbcr", channels=RGB, tolerance=3),
    "YCbCr in JPEG": tiff(
        _ycbcr(_SMOOTH),
        np.moveaxis(_SMOOTH, -1, 0),
        "CYX",
        photometric="ycbcr",
        compression="jpeg",
        compressionargs={"level": 98},
        channels=RGB,
        tolerance=8,
    ),
    "YCbCr in JPEG, fewer colour samples": tiff(
        _ycbcr(_SMOOTH),
        np.moveaxis(_SMOOTH, -1, 0),
        "CYX",
        photometric="ycbcr",
        compression="jpeg",
        compressionargs={"level": 98},
        subsampling=(2, 2),
        channels=RGB,
        tolerance=12,
    ),
}


def encoded(array: NDArray[Any], kind: str, mode: str | None = None, **options: Any) -> bytes:
    """Encode a picture with Pillow."""
    buffer = io.BytesIO()
    (Picture.fromarray(array, mode) if mode else Picture.fromarray(array)).save(buffer, kind, **options)
    return buffer.getvalue()
