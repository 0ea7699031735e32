"""PNG and JPEG pictures: their headers, read without decoding, and their pixels."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8\xff"
# Pillow warns or refuses beyond this many pixels; such images belong into TIFF or OME-Zarr.
LARGEST_PICTURE = 89_478_485

# Deflate reaches 1032. A progressive JPEG spends next to nothing on blank blocks of 64 pixels.
_DENSEST_PNG = 1_040
_DENSEST_JPEG = 50_000
_PNG_SAMPLES = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
# Start-of-frame markers of JPEG; C4, C8 and CC in their midst mean something else.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class PictureHeader:
    """What a picture declares.

    Parameters
    ----------
    shape
        ``(Y, X, samples)``.
    bits
        Bits per sample.
    alpha
        Whether the last sample is transparency.
    densest
        How many bytes of pixels one byte of the file can stand for at most.
    """

    shape: tuple[int, int, int]
    bits: int
    alpha: bool
    densest: int

    def fits(self, length: int) -> bool:
        """Whether a file of so many bytes can hold the pixels declared."""
        return math.prod(self.shape) * self.bits <= 8 * self.densest * length


def is_picture(start: bytes) -> bool:
    """Whether a file that starts with these bytes is a PNG or JPEG picture."""
    return start.startswith((PNG_START, JPEG_START))


def picture_header(file: BinaryIO) -> PictureHeader:
    """Read the header of a PNG or JPEG picture.

    Raises
    ------
    ValueError
        When there is none.
    struct.error
        When it is cut off.
    """
    if file.read(2) == PNG_START[:2]:
        file.seek(16)
        width, height, bits, colour = struct.unpack(">IIBB", file.read(10))
        if colour not in _PNG_SAMPLES:
            raise ValueError(f"a PNG picture cannot have colour type {colour}")
        return PictureHeader((height, width, _PNG_SAMPLES[colour]), bits, alpha=colour in (4, 6), densest=_DENSEST_PNG)
    while True:
        marker, kind, length = struct.unpack(">BBH", file.read(4))
        if marker != 0xFF or length < 2:
            raise ValueError("a JPEG segment is damaged")
        if kind in _JPEG_FRAMES:
            bits, height, width, samples = struct.unpack(">BHHB", file.read(6))
            return PictureHeader((height, width, samples), bits, alpha=False, densest=_DENSEST_JPEG)
        file.seek(length - 2, 1)


def decode_picture(data: bytes) -> np.ndarray:
    """Decode the bytes of a picture to ``(Y, X)`` or ``(Y, X, samples)``.

    PNG by libpng, which keeps 16-bit colour where Pillow reduces it to 8 bits; JPEG by Pillow, which notices that a
    file is cut off where libjpeg makes up the rest.
    """
    if data.startswith(PNG_START):
        from imagecodecs import png_decode

        return np.asarray(png_decode(data))
    import imageio.v3

    return np.asarray(imageio.v3.imread(data, plugin="pillow", index=0))
