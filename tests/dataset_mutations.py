"""What can happen to one file of a data set, half of it to headers, tags, XML and ``zarr.json``."""

from __future__ import annotations

import re
import shutil
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from cytoray_analysis.images import read_image
from image_mutations import mutated
from tiny_datasets import store

Change = Callable[[Path, np.random.Generator, Sequence[Path]], str]
_NUMBERS = (0, 1, 2, 3, 5, 7, 8, 16, 31, 33, 64, 255, 256, 32_773, 65_535, 2**31 - 1, 2**32 - 1)


@dataclass(frozen=True)
class Changed:
    """What was done to a file.

    Attributes
    ----------
    kind
        One of :data:`KINDS`.
    what
        In detail.
    also
        Other names that the file has now.
    """

    kind: str
    what: str
    also: tuple[Path, ...] = field(default=())

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


def change_file(path: Path, rng: np.random.Generator, files: Sequence[Path], kinds: str = "") -> Changed:
    """Change a file in one of the ways whose names begin so; `files` are all of its data set."""
    headers = rng.random() < 0.5
    wanted = [kind for kind in (_HEADERS if headers else _CONTENTS) if kind.startswith(kinds)]
    kind = str(rng.choice(wanted or [kind for kind in KINDS if kind.startswith(kinds)]))
    before = set(path.parent.iterdir())
    what = KINDS[kind](path, rng, files)
    return Changed(kind, what, tuple(sorted(set(path.parent.iterdir()) - before)))


def is_mask(path: Path) -> bool:
    """Whether a file of a data set holds numbers of objects."""
    return path.parent.name in ("masks", "TRA", "SEG")


# --- headers -------------------------------------------------------------------------------------------------------


def _flip(data: bytearray, begin: int, end: int, rng: np.random.Generator, count: int) -> str:
    places = sorted(int(place) for place in rng.integers(begin, max(begin + 1, end), count))
    for place in places:
        data[place] ^= 1 << int(rng.integers(8))
    return f"bits at {places} of {begin}..{end}"


def _header_bits(path: Path, rng: np.random.Generator, files: Sequence[Path]) -> str:
    """Flip one to four bits of a TIFF's directory, of a PNG's first chunk, or of a file of JSON."""
    count = int(rng.choice((1, 1, 2, 4)))
    part = _part(path, rng, "zarr.json")
    data = bytearray(part.read_bytes())
    if path.suffix == ".tif":
        begin, end = _directory(data)
        if rng.random() < 0.1:
            begin, end = 0, 8
    else:
        begin, end = 0, {".png": 33, ".jpg": data.find(b"\xff\xda") + 10}.get(path.suffix, len(data))
    what = _flip(data, begin, end, rng, count)
    part.write_bytes(data)
    return what


def _header_field(path: Path, rng: np.random.Generator, files: Sequence[Path]) -> str:
    """Write another number into a field of a header that is otherwise sound."""
    part = _part(path, rng, "zarr.json")
    data = bytearray(part.read_bytes())
    number = int(rng.choice(_NUMBERS))
    if path.suffix == ".tif":
        begin, end = _directory(data)
        entry = begin + 2 + 12 * int(rng.integers((end - begin - 6) // 12))
        place, form = ((0, "H"), (2, "H"), (4, "I"), (8, "I"), (8, "H"), (8, "H"))[int(rng.integers(6))]
        order = "<" if data[:2] == b"II" else ">"
        tag = struct.unpack_from(f"{order}H", data, entry)[0]
        struct.pack_into(order + form, data, entry + place, number % 2 ** (16 if form == "H" else 32))
        what = f"tag {tag}: byte {place} is {number}"
    elif path.suffix == ".png":
        place, form = ((16, ">I"), (20, ">I"), (24, "B"), (25, "B"), (28, "B"))[int(rng.integers(5))]
        struct.pack_into(form, data, place, number % (256 if form == "B" else 2**31))
        struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
        what = f"IHDR: byte {place} is {number}"
    elif path.suffix == ".jpg":
        place = data.index(b"\xff\xc0") + int(rng.choice((4, 6, 8, 9)))
        data[place] = number % 256
        what = f"frame header: byte {place} is {number % 256}"
    else:
        places = [match.span() for match in re.finditer(rb"\b\d+(\.\d+)?\b", bytes(data))]
        first, last = places[int(rng.integers(len(places)))]
        what = f"{part.parent.name}/{part.name}: {bytes(data[first - 30 : last]).split()} is {number}"
        data[first:last] = str(number).encode()
    part.write_bytes(data)
    return what


def _header_text(path: Path, rng: np.random.Generator, files: Sequence[Path]) -> str:
    """Change some letters of XML, JSON or a description, or cut, repeat or remove a piece of it."""
    part = _part(path, rng, "zarr.json")
    data = bytearray(part.read_bytes())
    begin, end = 0, len(data)
    if path.suffix == ".tif":
        begin, end = _description(data)
    elif path.suffix in (".png", ".jpg"):
        end = 41
    place = int(rng.integers(begin, end))
    length = min(int(rng.integers(1, 24)), end - place)
    how = int(rng.integers(3 if path.suffix == ".zarr" else 2))
    if how == 0:
        data[place : place + length] = rng.integers(32, 127, length).astype(np.uint8).tobytes()
    elif how == 1:
        data[place : place + length] = b" " * length
    else:
        del data[place : place + length]
    part.write_bytes(data)
    return f"{part.name}: {length} letters at {place}, way {how}"


def _metadata_value(path: Path, rng: np.random.Generator, files: Sequence[Path]) -> str:
    """Write another value of the same length into XML or JSON that stays well-formed."""
    part = _part(path, rng, "zarr.json")
    data = bytearray(part.read_bytes())
    pattern = rb'="([^"]+)"' if path.suffix == ".tif" and b"<OME" in data else rb'"([A-Za-z0-9]+)"|\b(\d+)\b'
    begin, end = _description(data) if path.suffix == ".tif" else (0, len(data))
    if path.suffix in (".png", ".jpg"):
        return _header_field(path, rng, files)
    found = list(re.finditer(pattern, bytes(data[begin:end])))
    if not found:
        return _header_field(path, rng, files)
    match = found[int(rng.integers(len(found)))]
    group = 1 if match.group(1) else 2
    old = match.group(group)
    letters = b"0123456789" if old.replace(b".", b"").isdigit() else b"abcdefghijklmnopqrstuvwxyzXYZCT"
    place = int(rng.integers(len(old)))
    new = bytearray(old)
    if new[place : place + 1] != b".":
        new[place] = letters[int(rng.integers(len(letters)))]
    data[begin + match.start(group) : begin + match.end(group)] = new
    part.write_bytes(data)
    return f"{part.name}: {old!r} is {bytes(new)!r}"


def _part(path: Path, rng: np.random.Generator, name: str) -> Path:
    """Return the file itself, or one of that name in a folder."""
    if not path.is_dir():
        return path
    parts = [one for one in sorted(path.rglob("*")) if one.is_file() and (one.name == name) == (name == "zarr.json")]
    return parts[int(rng.integers(len(parts)))]


def _directory(data: bytes | bytearray) -> tuple[int, int]:
    order = "<" if data[:2] == b"II" else ">"
    begin = struct.unpack_from(f"{order}I", data, 4)[0]
    return begin, begin + 6 + 12 * struct.unpack_from(f"{order}H", data, begin)[0]


def _description(data: bytes | bytearray) -> tuple[int, int]:
    with tifffile.TiffFile(_stream(data)) as file:
        tag = file.pages.first.tags.get(270)
        return (tag.valueoffset, tag.valueoffset + tag.count) if tag is not None else _directory(data)


def _stream(data: bytes | bytearray) -> Any:
    import io

    return io.BytesIO(bytes(data))


# --- contents ------------------------------------------------------------------------------------------------------


def _pixel_bytes(path: Path) -> tuple[Path, int, int]:
    """Return the file and the range of bytes in which pixels are stored."""
    if path.is_dir():
        chunk = max((one for one in path.rglob("*") if one.is_file() and one.suffix != ".json"), key=_length)
        return chunk, 0, _length(chunk)
    data = path.read_bytes()
    if path.suffix == ".jpg":
        return path, data.index(b"\xff\xda") + 10, len(data)
    if path.suffix == ".png":
        begin = data.index(b"IDAT") + 4
        return path, begin, begin + struct.unpack_from(">I", data, begin - 8)[0]
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        return path, page.dataoffsets[0], page.dataoffsets[-1] + page.databytecounts[-1]


def _length(path: Path) -> int:
    return path.stat().st_size


def _one_bit(path: Path, rng: np.random.Generator, files: Sequence[Path]) -> str:
    part, begin, end = _pixel_bytes(path)
    data = bytearray(part.read_bytes())
    what = _flip(data, begin, end, rng, 1)
    part.write_bytes(data)
    return what


def _byte_flips(path: Path, rng: np.random.Generator, files: Sequence[Path]) -> str:
    part, begin, end = _pixel_bytes(path)
    data = bytearray(part.read_bytes())
    count = int(rng.choice((1, 2, 4, 16)))
    places = sorted(int(place) for place in rng.integers(begin, end, count))
    for place in places:
        data[place] ^= int(rng.integers(1, 256))
    part.write_bytes(data)
    return f"bytes at {places} of {begin}..{end}"


def _zeroed(path: Path, rng: np.random.Generator, files: Sequence[Path]) -> str:
    part, begin, end = _pixel_bytes(path)
    data = bytearray(part.read_bytes())
    first = int(rng.integers(begin, end))
    last = min(end, first + int(rng.choice((16, 64, 256, 1024))))
    data[first:last] = bytes(last - first)
    part.write_bytes(data)
    return f"zeros at {first}..{last} of {begin}..{end}"


def _truncation(path: Path, rng: np.random.Generator, files: Sequence[Path]) -> str:
    part = path
    if path.is_dir():
        parts = [one for one in sorted(path.rglob("*")) if one.is_file()]
        part = parts[int(rng.integers(len(parts)))]
    data = part.read_bytes()
    length = int(rng.integers(len(data)))
    part.write_bytes(data[:length])
    return f"{part.name} cut to {length} of {len(data)}"


def _any_bytes(path: Path, rng: np.random.Generator, files: Sequence[Path]) -> str:
    part = path
    if path.is_dir():
        parts = [one for one in sorted(path.rglob("*")) if one.is_file()]
        part = parts[int(rng.integers(len(parts)))]
    mutation = mutated({part.name: part.read_bytes()}, int(rng.integers(2**31)))
    part.write_bytes(mutation.data)
    return f"{part.name}: {', '.join(mutation.changes)}"


def _empty(path: Path, rng: np.random.Generator, files: Sequence[Path]) -> str:
    return _replaced(path, b"")


def _text(path: Path, rng: np.random.Generator, files: Sequence[Path]) -> str:
    return _replaced(path, b"Dear colleague,\nthe images are on the other disk.\n")


def _replaced(path: Path, data: bytes) -> str:
    if path.is_dir():
        shutil.rmtree(path)
    path.write_bytes(data)
    return f"{len(data)} bytes"


def _read(path: Path) -> tuple[NDArray[Any], dict[str, Any]]:
    """Return pixels, and how to write them as they are."""
    image = read_image(path, labels=is_mask(path))
    how: dict[str, Any] = {}
    if path.name.endswith((".ome.tif", ".zarr")):
        how = {"channels": image.channels, "pixel_size": image.pixel_size, "axes": image.axes}
    elif path.suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            how = {"compression": "zlib"} if file.pages.first.compression != 1 else {}
    return image.read(), how


def _store(path: Path, pixels: NDArray[Any], how: Mapping[str, Any]) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    store(path, np.ascontiguousarray(pixels), **how)


def _other_format(path: Path, rng: np.random.Generator, files: Sequence[Path]) -> str:
    """Lay the bytes of another format under the name."""
    if path.is_dir():
        return _text(path, rng, files)
    pixels, _ = _read(path)
    suffix = str(rng.choice([one for one in (".png", ".tif", ".jpg", ".ome.tif") if one != path.suffix]))
    other = path.with_name(f"other{suffix}")
    store(other, pixels)
    other.replace(path)
    return suffix


def _other_type(path: Path, rng: np.random.Generator, files: Sequence[Path]) -> str:
    pixels, how = _read(path)
    kind = np.dtype(str(rng.choice([one for one in ("uint8", "uint16", "int32", "float32") if one != pixels.dtype])))
    if path.suffix == ".png":
        kind = np.dtype("uint16" if pixels.dtype == np.uint8 else "uint8")
    if kind == np.uint8 and pixels.max() > 255:
        pixels = (pixels >> 4).clip(0, 255)
    _store(path, pixels.astype(kind), how)
    return str(kind)


def _other_size(path: Path, rng: np.random.Generator, files: Sequence[Path]) -> str:
    pixels, how = _read(path)
    way = int(rng.integers(3))
    new = (pixels[..., 1:, :], pixels[..., :, :-3], pixels.repeat(2, -1).repeat(2, -2))[way]
    _store(path, new, how)
    return str(new.shape)


def _turned(path: Path, rng: np.random.Generator, files: Sequence[Path]) -> str:
    pixels, how = _read(path)
    way = int(rng.integers(4))
    _store(path, (pixels[..., ::-1], pixels[..., ::-1, :], pixels.swapaxes(-1, -2), pixels[..., ::-1, ::-1])[way], how)
    return ("mirrored along X", "mirrored along Y", "transposed", "turned by 180°")[way]


def _inverted(path: Path, rng: np.random.Generator, files: Sequence[Path]) -> str:
    pixels, how = _read(path)
    _store(path, (pixels.max() - pixels if rng.random() < 0.5 else np.iinfo(pixels.dtype).max - pixels), how)
    return "of its largest value or of its type's"


def _scaled(path: Path, rng: np.random.Generator, files: Sequence[Path]) -> str:
    pixels, how = _read(path)
    factor = float(rng.choice((0.05, 0.2, 8.0, 16.0)))
    _store(path, (pixels * factor).clip(0, np.iinfo(pixels.dtype).max).astype(pixels.dtype), how)
    return f"times {factor}"


def _other_channels(path: Path, rng: np.random.Generator, files: Sequence[Path]) -> str:
    pixels, how = _read(path)
    count = int(rng.choice((1, 3, 4)))
    new = np.stack([pixels.reshape(-1, *pixels.shape[-2:])[0]] * count)
    kept = {key: value for key, value in how.items() if key not in ("channels", "axes")}
    _store(path, new[0] if count == 1 else new, kept)
    return f"{count} channels"


def _channel_names(path: Path, rng: np.random.Generator, files: Sequence[Path]) -> str:
    pixels, how = _read(path)
    if "channels" not in how:
        return _header_text(path, rng, files)
    names = tuple(reversed(how["channels"])) if pixels.ndim == 3 and rng.random() < 0.5 else ("GFP", "Cy5")
    _store(path, pixels, how | {"channels": names[: len(how["channels"])]})
    return str(names)


def _pixel_size(path: Path, rng: np.random.Generator, files: Sequence[Path]) -> str:
    pixels, how = _read(path)
    if "pixel_size" not in how:
        return _header_field(path, rng, files)
    factor = float(rng.choice((0.001, 0.5, 2.0, 1000.0)))
    _store(path, pixels, how | {"pixel_size": {axis: size * factor for axis, size in how["pixel_size"].items()}})
    return f"times {factor}"


def _copied(path: Path, rng: np.random.Generator, files: Sequence[Path]) -> str:
    """Lay a file of the other split over it."""
    kin = [one for one in files if one.parent != path.parent and one.parent.name == path.parent.name]
    kin = kin or [one for one in files if one != path and one.parent == path.parent]
    other = kin[int(rng.integers(len(kin)))]
    if path.is_dir():
        shutil.rmtree(path)
    if other.is_dir():
        path.unlink(missing_ok=True)
        shutil.copytree(other, path)
    else:
        shutil.copyfile(other, path)
    return str(other.name)


def _renamed(path: Path, rng: np.random.Generator, files: Sequence[Path]) -> str:
    stem = path.name.split(".")[0]
    new = path.with_name(stem + str(rng.choice((".txt", ".bak", ".jpg", ".dat", ""))))
    path.rename(new)
    return new.name


_HEADERS: Mapping[str, Change] = {
    "header, bits": _header_bits,
    "header, field": _header_field,
    "header, text": _header_text,
    "header, value of metadata": _metadata_value,
}
_CONTENTS: Mapping[str, Change] = {
    "truncated": _truncation,
    "one bit of pixel data": _one_bit,
    "bytes of pixel data": _byte_flips,
    "pixel data zeroed": _zeroed,
    "anything to its bytes": _any_bytes,
    "other format": _other_format,
    "other type of pixels": _other_type,
    "other size": _other_size,
    "mirrored or transposed": _turned,
    "inverted": _inverted,
    "darker or brighter": _scaled,
    "other number of channels": _other_channels,
    "other channel names": _channel_names,
    "other pixel size": _pixel_size,
    "empty": _empty,
    "a text": _text,
    "copied from another split": _copied,
    "renamed": _renamed,
}
KINDS: Mapping[str, Change] = {**_HEADERS, **_CONTENTS}
