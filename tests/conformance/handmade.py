"""TIFF files written tag by tag, where tifffile would not write what other programs do."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHORT, LONG, RATIONAL, ASCII = 3, 4, 5, 2
_FORMS = {SHORT: "H", LONG: "I", RATIONAL: "II", ASCII: "B"}
Values = Mapping[int, tuple[int, Sequence[int]]]


def page(shape: tuple[int, int], bits: int = 8, photometric: int = 1, **more: tuple[int, Sequence[int]]) -> Values:
    """Return the tags of a page of one sample; further ones as ``t266=(SHORT, [2])``."""
    tags: dict[int, tuple[int, Sequence[int]]] = {
        256: (LONG, [shape[1]]),
        257: (LONG, [shape[0]]),
        258: (SHORT, [bits]),
        259: (SHORT, [1]),
        262: (SHORT, [photometric]),
        277: (SHORT, [1]),
        278: (LONG, [shape[0]]),
    }
    return tags | {int(name[1:]): value for name, value in more.items()}


def tiff_of(pages: Sequence[tuple[Values, Sequence[bytes]]]) -> bytes:
    """Write a little-endian TIFF file of pages: their tags and the bytes of their strips."""
    data = bytearray(b"II*\0\0\0\0\0")
    link = 4
    for tags, strips in pages:
        offsets = []
        for strip in strips:
            offsets.append(len(data))
            data += strip
        data += b"\0" * (len(data) % 2)
        whole: dict[int, tuple[int, Sequence[int]]] = dict(tags)
        whole[273] = (LONG, [offset if strip else 0 for offset, strip in zip(offsets, strips, strict=True)])
        whole[279] = (LONG, [len(strip) for strip in strips])
        entries = []
        for code, (kind, values) in sorted(whole.items()):
            per = len(_FORMS[kind])
            packed = b"".join(
                struct.pack("<" + _FORMS[kind], *values[at : at + per]) for at in range(0, len(values), per)
            )
            if len(packed) > 4:
                place = struct.pack("<I", len(data))
                data += packed + b"\0" * (len(packed) % 2)
            else:
                place = packed.ljust(4, b"\0")
            entries.append(struct.pack("<HHI", code, kind, len(values) // per) + place)
        struct.pack_into("<I", data, link, len(data))
        data += struct.pack("<H", len(entries)) + b"".join(entries)
        link = len(data)
        data += b"\0\0\0\0"
    return bytes(data)


def packed_bits(array: NDArray[Any], *, last_first: bool = False) -> bytes:
    """Pack a picture of one bit per pixel, each row from a new byte."""
    return bytes(np.packbits(array, axis=-1, bitorder="little" if last_first else "big").tobytes())


def packed_nibbles(array: NDArray[Any]) -> bytes:
    """Pack a picture of four bits per pixel."""
    return bytes(((array[:, ::2] << 4) | array[:, 1::2]).astype(np.uint8).tobytes())
