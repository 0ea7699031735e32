"""TIFF files of strangers: their directories, walked and counted before a library trusts them.

A few kilobytes can make a reader spend gigabytes without a single pixel: directories that follow each other in a
circle, thousands of tags that all point to the same megabytes, OME metadata that announce a billion planes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from cytoray_analysis.errors import ImageTooLargeError, UnreadableImageError
from cytoray_analysis.images.limits import Limits

_MOST_TAGS = 1024
_MOST_NUMBERS = 2**20  # values of tags, unless the file is large enough to need more
_BYTES_PER_NUMBER = 64
_LONGEST_XML = 2**24
# Directories inside directories: SubIFDs, EXIF, GPS, interoperability.
_INNER = frozenset({330, 34665, 34853, 40965})
_INNER_PER_FRAME = 16
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
# Lengths of pages, strips and tiles. A negative one makes tifffile count pages backwards without end.
_LENGTHS = frozenset({256, 257, 258, 277, 278, 322, 323, 32997, 32998})
_UNSIGNED = frozenset({1, 3, 4, 13, 16, 18})
_BYTE_TYPES = frozenset({1, 2, 6, 7})


def check_directories(data: Any, limits: Limits, label: str) -> None:
    """Raise unless the directories of a TIFF file are as many, and as large, as an honest file has.

    Parameters
    ----------
    data
        The file's bytes, or a memory map of it.

    Raises
    ------
    UnreadableImageError
        Directories form a circle, or their tags claim more than the file holds.
    ImageTooLargeError
        There are more directories than planes are allowed.
    """
    walk = _Walk(data)
    offset, frames = walk.first, 0
    while offset:
        frames += 1
        if frames > limits.frames:
            raise ImageTooLargeError(
                f"{label} holds more than the {limits.frames} planes allowed",
                hint="send fewer frames per file, or store the image as OME-Zarr",
            )
        offset, inner = walk.read(offset, label)
        while inner:
            one = inner.pop()
            if one:
                inner += walk.read(one, label)[1]
            if walk.inner > _INNER_PER_FRAME * limits.frames:
                raise _claims(label, "too many directories inside directories")


class _Walk:
    """Reads one directory after the other and counts what they claim."""

    def __init__(self, data: Any) -> None:
        self._data = data
        self._order = "<" if bytes(data[:2]) == b"II" else ">"
        self._big = struct.unpack_from(f"{self._order}H", data, 2)[0] == 43
        self._seen: set[int] = set()
        self._numbers = 0
        self._bytes = 0
        self.inner = 0
        self.first = self._offset(8 if self._big else 4)

    def read(self, offset: int, label: str) -> tuple[int, list[int]]:
        """Return the offsets of the next directory, 0 after the last, and of those inside this one."""
        if offset in self._seen:
            raise _claims(label, "its directories form a circle")
        self._seen.add(offset)
        # Offsets behind the end are how some writers say that there is no other directory.
        form, size = ("Q", 20) if self._big else ("H", 12)
        start = offset + struct.calcsize(form)
        if start > len(self._data):
            return 0, []
        count = struct.unpack_from(self._order + form, self._data, offset)[0]
        end = start + count * size
        if count > _MOST_TAGS or end > len(self._data):
            raise _claims(label, f"a directory claims {count} tags")
        inner: list[int] = []
        for code, kind, values, place in self._entries(start, end):
            if code in _LENGTHS and kind not in _UNSIGNED:
                raise _claims(label, f"the length in tag {code} is no unsigned number")
            self._count(kind, values, label)
            if code in _INNER and values:
                inner += self._inner_offsets(kind, values, place, label)
        next_place = end
        if next_place + (8 if self._big else 4) > len(self._data):
            return 0, inner
        return self._offset(next_place), inner

    def _entries(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        form, head = ("HHQ", 12) if self._big else ("HHI", 8)
        size = 20 if self._big else 12
        for place in range(start, end, size):
            code, kind, values = struct.unpack_from(self._order + form, self._data, place)
            yield code, kind, values, place + head

    def _count(self, kind: int, values: int, label: str) -> None:
        if kind in _BYTE_TYPES:
            self._bytes += values
        else:
            self._numbers += values
        length = len(self._data)
        if self._bytes > length + _MOST_NUMBERS or self._numbers > max(_MOST_NUMBERS, length // _BYTES_PER_NUMBER):
            raise _claims(label, "its tags claim more than the file holds")

    def _inner_offsets(self, kind: int, values: int, place: int, label: str) -> list[int]:
        form = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(kind)
        if form is None:
            return []
        self.inner += values
        size = values * struct.calcsize(form)
        if size > (8 if self._big else 4):
            place = self._offset(place)
        if place + size > len(self._data):
            raise _claims(label, "its directories lie behind its end")
        return list(struct.unpack_from(f"{self._order}{values}{form}", self._data, place))

    def _offset(self, place: int) -> int:
        return int(struct.unpack_from(self._order + ("Q" if self._big else "I"), self._data, place)[0])


def check_ome(xml: str, limits: Limits, label: str) -> None:
    """Raise unless OME metadata announce no more planes than are allowed.

    Raises
    ------
    UnreadableImageError
        They are longer than any image needs, define entities, or count what cannot be.
    ImageTooLargeError
        They announce more planes.
    """
    if len(xml) > _LONGEST_XML or "<!DOCTYPE" in xml or "<!ENTITY" in xml:
        raise _claims(label, "its OME metadata are no plain description of an image")
    planes = 0
    for element in ElementTree.fromstring(xml).iter():  # noqa: S314 - entities are refused above
        name = element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""
        if name == "Pixels":
            planes += math.prod(max(1, int(element.get(f"Size{axis}", 1))) for axis in "TCZ")
        elif name == "TiffData":
            planes = max(planes, int(element.get("PlaneCount", 0)), int(element.get("NumPlanes", 0)))
        elif name.startswith("ModuloAlong") and "Start" in element.attrib:
            start, end, step = (float(element.get(key, 1)) for key in ("Start", "End", "Step"))
            planes = max(planes, math.ceil(abs((end - start) / step)))
        if planes > limits.frames:
            raise ImageTooLargeError(
                f"{label} announces more than the {limits.frames} planes allowed",
                hint="send fewer frames per file, or store the image as OME-Zarr",
            )


def _claims(label: str, what: str) -> UnreadableImageError:
    return UnreadableImageError(
        f"{label}: the TIFF file cannot be as it says: {what}",
        field="bytes",
        hint="the file is damaged; copy or export it again",
    )
