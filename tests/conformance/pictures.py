"""Layouts of PNG and JPEG pictures, and of other kinds where their reader is installed."""

from __future__ import annotations

import io
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

from conformance.colours import CMYK, COLOURS_OF_TABLE, encoded
from conformance.layout import COLOUR, CYX, DEEP, GREY, RGB, Layout, of_bytes


def _palette_png(array: NDArray[Any] = GREY, **options: Any) -> bytes:
    image = Picture.fromarray(array, "P")
    image.putpalette(COLOURS_OF_TABLE.T.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def _filled_jpeg() -> bytes:
    data = encoded(GREY, "JPEG", quality=98)
    place = data.index(b"\xff\xdb")
    return data[:place] + b"\xff\xff\xff" + data[place:]


def _turned_jpeg() -> bytes:
    tags = Picture.Exif()
    tags[274] = 6
    return encoded(GREY, "JPEG", quality=98, exif=tags)


_FEW = (GREY // 16).astype(np.uint8)
_DEEP_COLOUR = COLOUR.astype(np.uint16) * 200
_PRINTED = np.moveaxis(np.asarray(Picture.fromarray(CMYK, "CMYK").convert("RGB")), -1, 0)
_LOSSY: dict[str, Any] = {"channels": RGB, "tolerance": 12}

PICTURES: dict[str, Layout] = {
    "PNG": of_bytes(".png", lambda: encoded(GREY, "PNG"), GREY, "YX"),
    "PNG of 16 bits": of_bytes(".png", lambda: encoded(DEEP, "PNG"), DEEP, "YX"),
    "PNG of one bit": of_bytes(".png", lambda: encoded(GREY > 100, "PNG"), (GREY > 100).astype(np.uint8), "YX"),
    "PNG in colour": of_bytes(".png", lambda: encoded(COLOUR, "PNG"), CYX, "CYX", channels=RGB),
    "PNG in colour of 16 bits": of_bytes(
        ".png",
        lambda: bytes(imagecodecs.png_encode(_DEEP_COLOUR)),
        np.moveaxis(_DEEP_COLOUR, -1, 0),
        "CYX",
        channels=RGB,
    ),
    "PNG in colour with alpha": of_bytes(
        ".png", lambda: encoded(np.dstack([COLOUR, GREY]), "PNG"), CYX, "CYX", channels=RGB
    ),
    "PNG of grey with alpha": of_bytes(".png", lambda: encoded(np.dstack([GREY, 255 - GREY]), "PNG", "LA"), GREY, "YX"),
    "PNG with a transparent colour": of_bytes(
        ".png", lambda: encoded(COLOUR, "PNG", transparency=(1, 2, 3)), CYX, "CYX", channels=RGB
    ),
    "PNG of grey saved as RGB": of_bytes(".png", lambda: encoded(np.dstack([GREY] * 3), "PNG"), GREY, "YX"),
    "PNG with a palette": of_bytes(".png", _palette_png, COLOURS_OF_TABLE[:, GREY], "CYX", channels=RGB),
    "PNG with a palette of 4 bits": of_bytes(
        ".png", lambda: _palette_png(_FEW, bits=4), COLOURS_OF_TABLE[:, _FEW], "CYX", channels=RGB
    ),
    "PNG with a palette and transparent entries": of_bytes(
        ".png",
        lambda: _palette_png(transparency=bytes(range(256))),
        COLOURS_OF_TABLE[:, GREY],
        "CYX",
        channels=RGB,
    ),
    "JPEG": of_bytes(".jpg", lambda: encoded(GREY, "JPEG", quality=98), GREY, "YX", tolerance=12),
    "JPEG in colour": of_bytes(
        ".jpg", lambda: encoded(COLOUR, "JPEG", quality=100, subsampling=0), CYX, "CYX", **_LOSSY
    ),
    "JPEG in CMYK": of_bytes(".jpg", lambda: encoded(CMYK, "JPEG", "CMYK", quality=100), _PRINTED, "CYX", **_LOSSY),
    "JPEG that is progressive": of_bytes(
        ".jpg",
        lambda: encoded(COLOUR, "JPEG", quality=100, subsampling=0, progressive=True),
        CYX,
        "CYX",
        **_LOSSY,
    ),
    "JPEG with fill bytes": of_bytes(".jpg", _filled_jpeg, GREY, "YX", tolerance=12),
    "JPEG with a tag of orientation": of_bytes(".jpg", _turned_jpeg, GREY, "YX", tolerance=12),
    "a PNG called .tif": of_bytes(".tif", lambda: encoded(GREY, "PNG"), GREY, "YX"),
}
