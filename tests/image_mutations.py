"""Valid images of many kinds, and what can be done to their bytes; each seed gives the same mutation every time."""

from __future__ import annotations

import io
import json
import random
import re
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio.v3
import numpy as np
import tifffile
from numpy.typing import NDArray

from cytoray_analysis.images import image_from_array, write_image

_EXTREME = (0, 1, 2, 7, 255, 256, 65_535, 65_536, 2**20, 2**31 - 1, 2**31, 2**32 - 1)
_TIFF_STARTS = (b"II*\0", b"MM\0*")


Change = Callable[[bytearray, random.Random, Mapping[str, bytes]], None]


@dataclass(frozen=True)
class Mutation:
    """Bytes that were once an image.

    Attributes
    ----------
    source
        Which image.
    changes
        What was done to it.
    data
        The outcome.
    """

    source: str
    changes: tuple[str, ...]
    data: bytes


def valid_images() -> dict[str, bytes]:
    """Return images of every kind that is read from bytes, some ten kilobytes each."""
    generator = np.random.default_rng(0)

    def grey(*shape: int) -> NDArray[np.uint8]:
        return np.asarray((generator.random(shape) * 200).astype(np.uint8) // 8 * 8)

    images = {
        f"tiff {compression or 'plain'}": _tiff(grey(96, 128), compression=compression)
        for compression in (None, "lzw", "zlib", "zstd", "packbits", "jpeg", "lzma")
    }
    images |= {
        "tiff tiles": _tiff(grey(96, 128), tile=(32, 32), compression="zlib", predictor=True),
        "tiff strips": _tiff(grey(96, 128), rowsperstrip=1),
        "tiff colour": _tiff(grey(48, 64, 3), photometric="rgb"),
        "tiff 16 bit big-endian": _tiff(grey(96, 128).astype(np.uint16) * 200, byteorder=">"),
        "tiff float": _tiff(grey(64, 64).astype(np.float32)),
        "bigtiff": _tiff(grey(64, 64), bigtiff=True),
        "tiff pages": _tiff(grey(6, 40, 56), photometric="minisblack"),
        "imagej": _tiff(grey(4, 40, 56), imagej=True, metadata={"axes": "TYX"}),
        "png 8": _picture(grey(96, 128), ".png"),
        "png 16": _picture(grey(96, 128).astype(np.uint16) * 200, ".png"),
        "png colour": _picture(grey(48, 64, 4), ".png"),
        "jpeg": _picture(grey(96, 128), ".jpg"),
        "jpeg colour": _picture(grey(96, 128, 3), ".jpg"),
        "zip": _zipped(grey(96, 128), zipfile.ZIP_STORED),
        "zip 0.4": _zipped(grey(2, 48, 64), zipfile.ZIP_STORED, version=2),
        "zip deflated": _zipped(grey(3, 48, 64), zipfile.ZIP_DEFLATED),
    }
    for axes in ("YX", "CYX", "ZYX", "TYX", "TZYX", "CZYX", "TCYX", "ZCYX", "CTYX", "TCZYX", "CTZYX", "ZTCYX"):
        images[f"ome {axes}"] = _tiff(grey(*range(2, len(axes)), 40, 56), ome=True, metadata={"axes": axes})
    return images


def mutated(images: Mapping[str, bytes], seed: int) -> Mutation:
    """Return one of the images, changed in one to three ways.

    Every other seed changes what describes the pixels: fields of headers, OME-XML, ``zarr.json`` and ``.zattrs``.
    """
    dice = random.Random(seed)
    source = dice.choice(sorted(images))
    data, changes = bytearray(images[source]), []
    described = seed % 2 == 1
    if described:
        change = _describing_change(data, dice)
        change(data, dice, images)
        changes.append(change.__name__.strip("_"))
    for _ in range(dice.choice((0, 0, 0, 1)) if described else dice.choice((1, 1, 1, 2, 3))):
        change = dice.choice(_CHANGES)
        change(data, dice, images)
        changes.append(change.__name__.strip("_"))
    return Mutation(source, tuple(changes), bytes(data))


def _truncation(data: bytearray, dice: random.Random, images: Mapping[str, bytes]) -> None:
    del data[dice.randrange(len(data) + 1) :]


def _bit_flips(data: bytearray, dice: random.Random, images: Mapping[str, bytes]) -> None:
    for _ in range(dice.choice((1, 1, 2, 8, 40)) if data else 0):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _bit_flips_in_the_header(data: bytearray, dice: random.Random, images: Mapping[str, bytes]) -> None:
    for _ in range(dice.choice((1, 2, 5)) if data else 0):
        data[dice.randrange(min(len(data), 400))] ^= 1 << dice.randrange(8)


def _splice(data: bytearray, dice: random.Random, images: Mapping[str, bytes]) -> None:
    other = images[dice.choice(sorted(images))]
    begin = dice.randrange(len(other))
    place = dice.randrange(len(data) + 1)
    data[place : place + dice.choice((0, 4, 100))] = other[begin : begin + dice.randrange(1, 600)]


def _removal(data: bytearray, dice: random.Random, images: Mapping[str, bytes]) -> None:
    place = dice.randrange(len(data) + 1)
    del data[place : place + dice.randrange(1, 64)]


def _number(data: bytearray, dice: random.Random, images: Mapping[str, bytes]) -> None:
    """Write an extreme number somewhere, in either byte order."""
    if len(data) >= 8:
        form = dice.choice(("<H", ">H", "<I", ">I"))
        place = dice.randrange(min(len(data), dice.choice((64, 512, 2**20))) - 4)
        struct.pack_into(form, data, place, dice.choice(_EXTREME) % (2**16 if form[1] == "H" else 2**32))


def _lying_field(data: bytearray, dice: random.Random, images: Mapping[str, bytes]) -> None:
    """Change a field of the header and leave the file otherwise well-formed."""
    if data[:4] in _TIFF_STARTS:
        _lying_tag(data, dice)
    elif data[:4] == b"\x89PNG" and len(data) > 33:
        struct.pack_into(">I", data, dice.choice((16, 20)), dice.choice(_EXTREME))
        data[24] = dice.choice((data[24], 1, 2, 4, 8, 16))
        data[25] = dice.choice((data[25], 0, 2, 3, 4, 6))
        data[28] = dice.choice((0, 0, 1))
        struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    elif (place := data.find(b"\xff\xc0")) > 0 and place + 9 < len(data):
        struct.pack_into(">H", data, place + dice.choice((5, 7)), dice.choice(_EXTREME) % 2**16)
    elif (place := data.find(b'"shape":')) > 0:
        text = f'"shape":[{dice.choice(_EXTREME)},'.encode()
        data[place : place + len(text)] = text


def _lying_tag(data: bytearray, dice: random.Random) -> None:
    order = "<" if data[:2] == b"II" else ">"
    directory = struct.unpack_from(f"{order}I", data, 4)[0] if len(data) >= 8 else len(data)
    if directory + 2 > len(data):
        return
    count = struct.unpack_from(f"{order}H", data, directory)[0]
    entry = directory + 2 + 12 * dice.randrange(max(1, count))
    if entry + 12 > len(data):
        return
    what = dice.randrange(4)
    if what == 0:
        struct.pack_into(f"{order}I", data, entry + 8, dice.choice(_EXTREME))
    elif what == 1:
        struct.pack_into(f"{order}H", data, entry + 8, dice.choice((0, 1, 2, 3, 5, 6, 7, 8, 16, 32, 64, 32773, 50000)))
    elif what == 2:
        struct.pack_into(f"{order}I", data, entry + 4, dice.choice(_EXTREME))
    else:
        struct.pack_into(f"{order}H", data, entry, dice.choice((256, 258, 259, 270, 277, 317, 322, 330, 338, 339, 530)))


def _bomb(data: bytearray, dice: random.Random, images: Mapping[str, bytes]) -> None:
    """Put a stream that unfolds a thousandfold where pixels were."""
    blank = zlib.compress(bytes(2**22), 9)
    place = dice.randrange(len(data) + 1)
    data[place : place + len(blank)] = blank


def _repetition(data: bytearray, dice: random.Random, images: Mapping[str, bytes]) -> None:
    begin = dice.randrange(len(data) + 1)
    part = bytes(data[begin : begin + dice.randrange(1, 256)])
    data[begin:begin] = part * dice.choice((1, 3, 50))


def _describing_change(data: bytearray, dice: random.Random) -> Change:
    """Choose a change of what describes the pixels of a file of this kind."""
    if data[:2] == b"PK":
        return _metadata_member
    if b"<OME" in data:
        return dice.choice((_xml, _xml, _header_field))
    return _header_field


def _header_field(data: bytearray, dice: random.Random, images: Mapping[str, bytes]) -> None:
    """Change a field of the header, of TIFF sometimes the text of the description."""
    if data[:4] in _TIFF_STARTS and dice.random() < 0.2 and (place := data.find(b"ImageJ=")) > 0:
        _number_in_text(data, place, place + 120, dice)
    else:
        _lying_field(data, dice, images)


# What is put for values of attributes and of JSON: wrong kinds, extremes, what files in use have.
_VALUES = (
    "",
    "0",
    "-1",
    "1",
    "2",
    "3",
    "7",
    "65536",
    "4294967295",
    "1e308",
    "NaN",
    "inf",
    "none",
    "XYZCT",
    "XY",
    "\u00b5m",
    "uint16",
)


def _xml(data: bytearray, dice: random.Random, images: Mapping[str, bytes]) -> None:
    """Change the OME-XML in place: as many bytes as before, so that the file around it stays whole."""
    start, end = data.find(b"<OME"), data.find(b"</OME>") + 6
    text = bytes(data[start:end])
    values = list(re.finditer(rb'="([^"]*)"', text))
    tags = list(re.finditer(rb"<[A-Z][A-Za-z]*\b[^>]*?/>|</?[A-Z][A-Za-z]*\b[^>]*?>", text))
    what = dice.randrange(6)
    if what < 3 and values:
        found = dice.choice(values)
        text = text[: found.start(1)] + dice.choice(_VALUES).encode() + text[found.end(1) :]
    elif what == 3 and tags:
        found = dice.choice(tags)  # an element that lacks, or whose end lacks
        text = text[: found.start()] + text[found.end() :]
    elif what == 4 and tags:
        found = dice.choice(tags)
        text = text[: found.end()] + found.group() * dice.choice((1, 3)) + text[found.end() :]
    else:
        place = dice.randrange(len(text))
        text = text[:place] + bytes([dice.randrange(256)]) + text[place + 1 :]
    data[start:end] = text[: end - start].ljust(end - start)


def _number_in_text(data: bytearray, start: int, end: int, dice: random.Random) -> None:
    numbers = list(re.finditer(rb"\d+", bytes(data[start:end])))
    if numbers:
        found = dice.choice(numbers)
        width = found.end() - found.start()
        text = str(dice.choice(_EXTREME)).encode()[:width].rjust(width, b"9")
        data[start + found.start() : start + found.end()] = text


def _metadata_member(data: bytearray, dice: random.Random, images: Mapping[str, bytes]) -> None:
    """Change zarr.json, .zattrs or .zarray in an archive, which is then packed again."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    named = [name for name in members if name.rpartition("/")[2] in ("zarr.json", ".zattrs", ".zarray", ".zgroup")]
    name = dice.choice(sorted(named))
    text = members[name]
    document = json.loads(text)
    what = dice.randrange(6)
    if what < 4:
        _change_json(document, dice)
        members[name] = json.dumps(document).encode()
    elif what == 4:
        place = dice.randrange(len(text))
        members[name] = text[:place] + bytes([dice.randrange(256)]) + text[place + 1 :]
    else:
        members[name] = text[: dice.randrange(len(text))]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for member, content in members.items():
            archive.writestr(zipfile.ZipInfo(member), content)
    data[:] = packed.getvalue()


def _change_json(document: Any, dice: random.Random) -> None:
    """Change, remove or repeat one value of a JSON document, wherever it is."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    walk(document)
    if not places:  # an empty object
        document["multiscales"] = dice.choice((None, [], [{}]))
        return
    holder, key = dice.choice(places)
    what = dice.randrange(4)
    if what == 0:
        del holder[key]
    elif what == 1 and isinstance(holder, list):
        holder.append(holder[key])
    else:
        odd: tuple[Any, ...] = (
            None,
            True,
            -1,
            0,
            2,
            1.5,
            2**31,
            2**62,
            "",
            "q",
            "uint16",
            "|O8",
            [],
            {},
            [0],
            {"a": 1},
        )
        holder[key] = dice.choice(odd)


_CHANGES: tuple[Change, ...] = (
    _truncation,
    _bit_flips,
    _bit_flips_in_the_header,
    _splice,
    _removal,
    _number,
    _lying_field,
    _lying_field,
    _bomb,
    _repetition,
)


def _tiff(array: NDArray[np.generic], **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)  # type: ignore[arg-type]
    return file.getvalue()


def _picture(array: NDArray[np.generic], suffix: str) -> bytes:
    return bytes(imageio.v3.imwrite("<bytes>", array, extension=suffix) or b"")


def _zipped(array: NDArray[np.uint8], compression: int, *, version: int = 3) -> bytes:
    file = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.zarr"
        if version == 3:
            write_image(path, image_from_array(array, "CYX"[-array.ndim :]))
        else:
            _write_old_zarr(path, array)
        with zipfile.ZipFile(file, "w", compression) as archive:
            for member in sorted(path.rglob("*")):
                if member.is_file():
                    archive.write(member, member.relative_to(path).as_posix())
    return file.getvalue()


def _write_old_zarr(path: Path, array: NDArray[np.uint8]) -> None:
    """Write NGFF 0.4, whose metadata lie in .zattrs, .zgroup and .zarray."""
    import zarr

    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", shape=array.shape, dtype=array.dtype, chunks=(1, 32, 32))[...] = array
    axes = [{"name": "c", "type": "channel"}, *({"name": name, "type": "space", "unit": "micrometer"} for name in "yx")]
    scale = [{"type": "scale", "scale": [1.0, 0.5, 0.5]}]
    image: dict[str, Any] = {
        "version": "0.4",
        "axes": axes,
        "datasets": [{"path": "0", "coordinateTransformations": scale}],
    }
    group.attrs.update({"multiscales": [image], "omero": {"channels": [{"label": "DNA"}, {"label": "actin"}]}})
