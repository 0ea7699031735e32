"""PNG and JPEG pictures: their headers, read without decoding, and their pixels."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from cytoray_analysis.images.axes import COLOURS
from cytoray_analysis.images.colours import Colours, table_colours

PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8\xff"
# Pillow warns or refuses beyond this many pixels; such images need TIFF or OME-Zarr.
LARGEST_PICTURE = 89_478_485

# Deflate reaches 1032. A progressive JPEG needs almost no bytes for blank blocks of 64 pixels.
_DENSEST_PNG = 1_040
_DENSEST_JPEG = 50_000
_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
# Progressive pictures have about ten.
_MOST_SCANS = 100
_PALETTE = 3
_PNG_SAMPLES = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
# Start-of-frame markers of JPEG; C4, C8 and CC in their midst mean something else.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers without a segment: TEM, and restart markers.
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})


@dataclass(frozen=True)
class PictureHeader:
    """The header of a picture.

    Parameters
    ----------
    shape
        ``(Y, X, samples)``.
    bits
        Bits per sample.
    alpha
        Whether the last sample is transparency.
    densest
        Maximum number of decoded bytes per byte of the file.
    palette
        Whether samples are places in a table of colours.
    """

    shape: tuple[int, int, int]
    bits: int
    alpha: bool
    densest: int
    palette: bool = False

    def fits(self, length: int) -> bool:
        """Whether a file of this size can contain the declared pixels."""
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
        return PictureHeader(
            (height, width, _PNG_SAMPLES[colour]),
            bits,
            alpha=colour in (4, 6),
            densest=_DENSEST_PNG,
            palette=colour == _PALETTE,
        )
    file.seek(0)
    return jpeg_header(file)


def jpeg_header(file: BinaryIO) -> PictureHeader:
    """Read the header of a JPEG picture.

    Raises
    ------
    ValueError
        When there is none.
    struct.error
        When it is cut off.
    """
    if file.read(2) != JPEG_START[:2]:
        raise ValueError("a JPEG picture does not start like one")
    while True:
        marker, kind = struct.unpack(">BB", file.read(2))
        while kind == 0xFF:  # any number of fill bytes may stand before a marker
            (kind,) = struct.unpack(">B", file.read(1))
        if marker != 0xFF:
            raise ValueError("a JPEG segment is damaged")
        if kind in _JPEG_ALONE:
            continue
        (length,) = struct.unpack(">H", file.read(2))
        if length < 2:
            raise ValueError("a JPEG segment is damaged")
        if kind in _JPEG_FRAMES:
            bits, height, width, samples = struct.unpack(">BHHB", file.read(6))
            return PictureHeader((height, width, samples), bits, alpha=False, densest=_DENSEST_JPEG)
        file.seek(length - 2, 1)


def decode_picture(data: bytes, header: PictureHeader, *, labels: bool) -> tuple[np.ndarray, Colours]:
    """Decode the bytes of a picture.

    PNG by libpng, which keeps 16-bit colour, while Pillow reduces it to 8 bits; palettes and JPEG by Pillow, which
    keeps the indices of a palette, and detects truncated files, which libjpeg pads.

    Parameters
    ----------
    header
        Of these bytes.
    labels
        Whether it is a label image, of which the stored values count.

    Returns
    -------
    pixels, colours
        (Y, X) or (Y, X, samples) as stored, and the meaning of the samples.
    """
    if data.startswith(PNG_START):
        return _decode_png(_only_pixels(data), header, labels)
    if too_many_scans(data):
        raise ValueError(f"a JPEG picture of more than {_MOST_SCANS} scans")
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
        pixels = np.asarray(picture.convert("RGB") if picture.mode == "CMYK" else picture)
    return pixels, Colours(names=COLOURS if pixels.ndim == 3 and pixels.shape[2] == 3 else None)


def frames_left_out(data: bytes) -> int:
    """Return the number of further pictures in a file: an animated PNG, or a JPEG of several (MPO).

    Parameters
    ----------
    data
        The bytes of a PNG or JPEG picture.
    """
    if not data.startswith(PNG_START):
        from PIL import Image

        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            return int(getattr(picture, "n_frames", 1)) - 1
    frames, is_frame = 0, False
    for kind, start, _ in _png_chunks(data):
        if kind == b"acTL":
            (frames,) = struct.unpack_from(">I", data, start + 8)
        is_frame |= kind == b"fcTL"
        if kind == b"IDAT":  # a frame of the animation only where a control of frames stands before it
            break
    return max(0, frames - is_frame)


def _decode_png(png: bytes, header: PictureHeader, labels: bool) -> tuple[np.ndarray, Colours]:
    if header.palette:
        from PIL import Image

        with Image.open(io.BytesIO(png), formats=("PNG",)) as picture:
            table = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
            return np.asarray(picture), table_colours(table, header.bits, stored=labels)
    from imagecodecs import png_decode

    pixels = np.asarray(png_decode(png))
    if header.bits < 8:  # libpng stretches 1, 2 and 4 bits to 8
        pixels = pixels // (255 // (2**header.bits - 1))
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    stored = header.shape[2]
    # Transparency is the last sample, or added by libpng where the file names one transparent colour.
    keep = tuple(range(samples - 1)) if samples == stored + 1 or (header.alpha and samples == stored) else ()
    channels = len(keep) or samples
    if channels == 1 and pixels.ndim == 3:
        return pixels[..., 0], Colours(bits=header.bits)
    return pixels, Colours(keep=keep, names=COLOURS if channels == 3 else None, bits=header.bits)


def too_many_scans(jpeg: bytes) -> bool:
    """Whether a JPEG picture has so many scans that decoding it is an attack: each scan processes all pixels."""
    return jpeg.count(b"\xff\xda") > _MOST_SCANS


def _only_pixels(png: bytes) -> bytes:
    """Remove colour profiles and texts, which may decode to gigabytes, from a PNG file."""
    places = list(_png_chunks(png))
    if all(kind in _PIXEL_CHUNKS for kind, _, _ in places):
        return png
    view = memoryview(png)
    return PNG_START + b"".join(view[start:end] for kind, start, end in places if kind in _PIXEL_CHUNKS)


def _png_chunks(png: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind, the first byte and the end of each chunk."""
    place = len(PNG_START)
    while place + 12 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, place)
        yield kind, place, place + 12 + length
        place += 12 + length
        if kind == b"IEND":
            return
