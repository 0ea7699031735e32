"""Untrusted TIFF files: their directories are walked and counted before a library reads them.

A few kilobytes can make a reader spend gigabytes without a single pixel: directories in a circle, thousands of tags
that point to the same megabytes, OME metadata that declare a billion planes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any

from cytoray_analysis.answer_warnings import AnswerWarning, Warnings
from cytoray_analysis.errors import ImageTooLargeError, UnreadableImageError
from cytoray_analysis.images.limits import Limits

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF files, of either order of bytes."""
_MOST_TAGS = 1024
_MOST_NUMBERS = 2**20  # values of tags, unless the file is large enough to need more
_BYTES_PER_NUMBER = 64
_LONGEST_XML = 2**24
# Directories inside directories: SubIFDs, EXIF, GPS, interoperability.
_INNER = frozenset({330, 34665, 34853, 40965})
_INNER_PER_FRAME = 16
# Lengths of pages, strips and tiles. A negative one makes tifffile count pages backwards without end.
_LENGTHS = frozenset({256, 257, 258, 277, 278, 322, 323, 32997, 32998})
_UNSIGNED = frozenset({1, 3, 4, 13, 16, 18})
_BYTE_TYPES = frozenset({1, 2, 6, 7})
# ImageJ writes a colour table into every directory of a movie; they are read as arrays, one at a time.
_COLOUR_TABLE, _MOST_COLOURS = 320, 2**25
# Descriptions by ImageJ and tifffile of a file with several pages.
_DESCRIPTION, _STACK_SAID = 270, 4096
_SEVERAL = re.compile(rb"ImageJ=[^\0]*?\nimages=(?!1\D)\d|\{\"shape\": \[", re.DOTALL)


def check_directories(data: Any, limits: Limits, label: str) -> Warnings:
    """Raise unless the directories of a TIFF file are as many, and as large, as an honest file has.

    Parameters
    ----------
    data
        The file's bytes, or a memory map of it.

    Returns
    -------
    tuple of AnswerWarning
        Warnings about data beyond the end of the file.

    Raises
    ------
    UnreadableImageError
        Directories form a circle, their tags claim more than the file holds, or it was cut before pages that it
        announces.
    ImageTooLargeError
        There are more directories than planes are allowed.
    """
    walk = _Walk(data)
    lost = walk.lost(label)
    offset, frames = walk.first, 0
    while offset:
        frames += 1
        if frames > limits.frames:
            raise ImageTooLargeError(
                f"expected at most {limits.frames} planes, got {label} with more",
                hint="send fewer frames per file, or store the image as OME-Zarr",
            )
        offset, inner = walk.read(offset, label)
        while inner:
            one = inner.pop()
            if one:
                inner += walk.read(one, label)[1]
            if walk.inner > _INNER_PER_FRAME * limits.frames:
                raise _claims(label, "too many directories inside directories")
    return lost


def check_chain(data: Any, label: str) -> Warnings:
    """Raise where directories of a TIFF file form a circle, which tifffile follows for hours, or its end is cut off.

    Nothing else of them is looked at; beyond what a 32-bit offset reaches some writers have offsets of their own.

    Returns
    -------
    tuple of AnswerWarning
        As of :func:`check_directories`.

    Raises
    ------
    UnreadableImageError
        They form a circle, or the file was cut before pages that it announces.
    """
    walk = _Walk(data)
    if len(data) >= 2**32 and not walk.big:
        return ()
    lost = walk.lost(label)
    offset, seen = walk.first, set[int]()
    while offset:
        if offset in seen:
            raise _claims(label, "its directories form a circle")
        seen.add(offset)
        offset = walk.next_after(offset)
    return lost


class _Walk:
    """Reads one directory after the other and counts their declared data."""

    def __init__(self, data: Any) -> None:
        self._data = data
        self._order = "<" if bytes(data[:2]) == b"II" else ">"
        self.big = struct.unpack_from(f"{self._order}H", data, 2)[0] == 43
        self._seen: set[int] = set()
        self._numbers = 0
        self._bytes = 0
        self._colours = 0
        self.inner = 0
        self.first = self._offset(8 if self.big else 4)

    def read(self, offset: int, label: str) -> tuple[int, list[int]]:
        """Return the offsets of the next directory, 0 after the last, and of those inside this one."""
        if offset in self._seen:
            raise _claims(label, "its directories form a circle")
        self._seen.add(offset)
        start, end, count = self._tags(offset)
        if not start:
            return 0, []
        if count > _MOST_TAGS or end > len(self._data):
            raise _claims(label, f"a directory declares {count} tags")
        inner: list[int] = []
        for code, kind, values, place in self._entries(start, end):
            if code in _LENGTHS and kind not in _UNSIGNED:
                raise _claims(label, f"the length in tag {code} is not an unsigned number")
            self._count(code, kind, values, label)
            if code in _INNER and values:
                inner += self._inner_offsets(kind, values, place, label)
        return self._link(end), inner

    def lost(self, label: str) -> Warnings:
        """Return warnings about data beyond the end of the file.

        Some writers store the description, and the directories of all other pages, after the pixels. tifffile omits
        missing parts, and the first plane would appear as the whole image.

        Raises
        ------
        UnreadableImageError
            Pages that the file announces are not there.
        """
        start, end, count = self._tags(self.first)
        if not start or count > _MOST_TAGS or end > len(self._data):
            return ()
        found, last, length = [], self._last_link(), len(self._data)
        inline = 8 if self.big else 4
        for code, _, values, place in self._entries(start, end):
            if code != _DESCRIPTION or values <= inline:
                continue
            place = self._offset(place)
            said = bytes(self._data[place : min(place + values, place + _STACK_SAID)])
            gone = place + values > length
            if last > length and (gone or _SEVERAL.match(said)):
                raise UnreadableImageError(
                    f"{label}: the TIFF header places another page at byte {last}, but the file ends at {length}",
                    field="bytes",
                    hint="the file is truncated; copy or export it again",
                )
            if gone:
                sentence = f"{label}: its description is beyond the end of the file; axes, channel names and pixel size"
                found.append(AnswerWarning("metadata-unreadable", f"{sentence} may be unknown"))
        if last > length:
            sentence = f"{label} refers to another page beyond the end of the file; it may be truncated"
            found.append(AnswerWarning("pages-missing", sentence))
        return tuple(found)

    def _last_link(self) -> int:
        """Return what follows the last directory that is there: 0, or an offset behind the end."""
        offset, seen = self.first, set[int]()
        while 0 < offset <= len(self._data) and offset not in seen:
            seen.add(offset)
            offset = self.next_after(offset)
        return offset

    def next_after(self, offset: int) -> int:
        """Return the offset of the directory after this one; 0 after the last, and after one that is damaged."""
        start, end, count = self._tags(offset)
        return self._link(end) if start > 0 and count <= _MOST_TAGS and end <= len(self._data) else 0

    def _tags(self, offset: int) -> tuple[int, int, int]:
        """Return where the tags of a directory begin and end, and how many it claims; zeros where there is none."""
        # Some writers use an offset beyond the end to mark the last directory.
        form, size = ("Q", 20) if self.big else ("H", 12)
        start = offset + struct.calcsize(form)
        if start > len(self._data):
            return 0, 0, 0
        count = int(struct.unpack_from(self._order + form, self._data, offset)[0])
        return start, start + count * size, count

    def _link(self, end: int) -> int:
        return 0 if end + (8 if self.big else 4) > len(self._data) else self._offset(end)

    def _entries(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        form, head = ("HHQ", 12) if self.big else ("HHI", 8)
        size = 20 if self.big else 12
        for place in range(start, end, size):
            code, kind, values = struct.unpack_from(self._order + form, self._data, place)
            yield code, kind, values, place + head

    def _count(self, code: int, kind: int, values: int, label: str) -> None:
        if kind in _BYTE_TYPES:
            self._bytes += values
        elif code == _COLOUR_TABLE:
            self._colours += values
        else:
            self._numbers += values
        length = len(self._data)
        if (
            self._bytes > length + _MOST_NUMBERS
            or self._numbers > max(_MOST_NUMBERS, length // _BYTES_PER_NUMBER)
            or self._colours > _MOST_COLOURS
        ):
            raise _claims(label, "its tags declare more than the file contains")

    def _inner_offsets(self, kind: int, values: int, place: int, label: str) -> list[int]:
        form = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(kind)
        if form is None:
            return []
        self.inner += values
        size = values * struct.calcsize(form)
        if size > (8 if self.big else 4):
            place = self._offset(place)
        if place + size > len(self._data):
            raise _claims(label, "its directories are beyond its end")
        return list(struct.unpack_from(f"{self._order}{values}{form}", self._data, place))

    def _offset(self, place: int) -> int:
        return int(struct.unpack_from(self._order + ("Q" if self.big else "I"), self._data, place)[0])


def check_ome(xml: str, label: str) -> None:
    """Raise unless OME metadata are a plain description of an image, of a length that one needs.

    Raises
    ------
    UnreadableImageError
        They are longer, or define entities.
    """
    if len(xml) > _LONGEST_XML or (("<!DOCTYPE" in xml or "<!ENTITY" in xml) and "OME" in xml):
        raise _claims(label, "its OME metadata are not a plain description of an image")


def _claims(label: str, what: str) -> UnreadableImageError:
    return UnreadableImageError(
        f"{label}: the TIFF file is inconsistent: {what}",
        field="bytes",
        hint="the file is damaged; copy or export it again",
    )
