"""Zipped OME-Zarr (RFC-9): untrusted archives, checked member by member while they are unpacked."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from cytoray_analysis.errors import ImageTooLargeError, UnreadableImageError
from cytoray_analysis.images.axes import resolve_axes
from cytoray_analysis.images.limits import Declared, Limits
from cytoray_analysis.images.ome_zarr import (
    has_image,
    image_of,
    letters_of,
    name_of,
    no_image,
    no_level,
    places_in,
)
from cytoray_analysis.images.series import SeriesInfo

ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
ZARR_FILES = ("zarr.json", ".zgroup", ".zattrs", ".zarray")

_CENTRAL = b"PK\x01\x02"
_PIECE = 2**20
_MOST_METADATA = 2**22
# Chunks are already compressed; an archive unpacks to at most the pixels of all levels, plus a margin.
_UNFOLDED, _UNFOLDED_LEAST = 2, 2**26
_BESIDE = 8  # times the images: pyramids, labels of wider types, other things that are zipped along
# Deflate reaches 1032, of blank data.
_DENSEST = 1_100


def unpack(source: Path, folder: Path, limits: Limits, label: str) -> Path:
    """Unpack a zipped OME-Zarr and return the folder of its image.

    Parameters
    ----------
    source
        The archive.
    folder
        An empty folder for its members.
    limits
        ``files`` limits the members, ``decoded_bytes`` their unpacked size, counted during unpacking.

    Raises
    ------
    UnreadableImageError
        It is damaged, encrypted, contains links or names that lead out of it, or is not an OME-Zarr.
    ImageTooLargeError
        It contains more than is allowed, or much more than the images that it declares.
    """
    data = source.read_bytes()
    declared = sum(one.decoded_bytes for _, one in _images_in(data, limits, label) if one is not None)
    left = min(_most_bytes(limits), max(_UNFOLDED_LEAST, _BESIDE * declared))
    with _opened(data, limits, label) as archive:
        members = _members(archive, limits, label)
        for name, member in members.items():
            target = folder.joinpath(*name.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as packed, target.open("xb") as file:
                for piece in _pieces(packed, left, label):
                    left -= file.write(piece)
        return folder.joinpath(*_image_folder(members, label).parts)


def declared_in(data: bytes, limits: Limits, label: str) -> Declared:
    """Return what the metadata in a zipped OME-Zarr declare; nothing else is unpacked.

    For an archive of several images, the largest one.
    """
    found = _images_in(data, limits, label)
    there = [declared for _, declared in found if declared is not None]
    if not there:
        raise no_image(label, found[0][0])
    return max(there, key=lambda one: one.decoded_bytes)


def list_in(data: bytes, limits: Limits, label: str) -> tuple[SeriesInfo, ...]:
    """List the images in a zipped OME-Zarr by its metadata; a missing one has no pixel."""
    return tuple(
        SeriesInfo(name, "YX", (0, 0)) if declared is None else SeriesInfo(name, declared.axes, declared.shape)
        for name, declared in _images_in(data, limits, label)
    )


def _images_in(data: bytes, limits: Limits, label: str) -> list[tuple[str, Declared | None]]:
    """Return name and size of every image, None for a missing one."""
    with _opened(data, limits, label) as archive:
        members = _members(archive, limits, label)
        root = _image_folder(members, label)

        def found(folder: PurePosixPath, *names: str) -> dict[str, Any] | None:
            for name in names:
                member = members.get(folder / name)
                if member is None:
                    continue
                if member.file_size > _MOST_METADATA:
                    raise too_much(label, member.file_size, _MOST_METADATA)
                with archive.open(member) as packed:
                    document = json.loads(b"".join(_pieces(packed, _MOST_METADATA, label)))
                if isinstance(document, dict):
                    return document
            return None

        def attributes_of(place: str) -> dict[str, Any] | None:
            document = found(root / place, "zarr.json", ".zattrs")
            attributes = None if document is None else document.get("attributes", document)
            return attributes if isinstance(attributes, dict) else None

        def declared(image: Mapping[str, Any], folder: PurePosixPath) -> Declared:
            path = str(image["datasets"][0]["path"])
            array = found(folder / path, "zarr.json", ".zarray")
            if array is None:
                raise no_level(label, path)
            shape = tuple(int(length) for length in array["shape"])
            letters = resolve_axes(letters_of(image, len(shape)), shape, label)
            return Declared(letters, shape, np.dtype(array.get("data_type") or array["dtype"]))

        attributes = attributes_of("")
        if attributes is None:
            raise UnreadableImageError(f"{label} lacks the metadata {root / 'zarr.json'}", hint="zip it again")
        if has_image(attributes):
            images = attributes.get("ome", attributes)["multiscales"][: limits.files]
            return [(name_of(image, images), declared(image, root)) for image in images]
        depth = len(root.parts)
        groups = {name.parts[depth] for name in members if len(name.parts) > depth + 1}
        places = places_in(attributes, attributes_of, groups)[: limits.files]
        if not places:
            image_of(attributes, label)
        each = [(place, attributes_of(place)) for place in places]
        # A missing one raises an error when it is read.
        return [
            (place, None if own is None else declared(image_of(own, f"{label}/{place}"), root / place))
            for place, own in each
        ]


def too_much(label: str, size: int, limit: int) -> ImageTooLargeError:
    """Return the error for an archive that unpacks to too many bytes."""
    return ImageTooLargeError(
        f"expected an archive of at most {limit} unpacked bytes, got {label} with {size} or more",
        hint="remove the pyramid's lower levels, crop the image, or pass its URI to a job",
    )


def _most_bytes(limits: Limits) -> int:
    return 2**62 if limits.decoded_bytes is None else max(_UNFOLDED_LEAST, _UNFOLDED * limits.decoded_bytes)


def _opened(data: bytes, limits: Limits, label: str) -> zipfile.ZipFile:
    # Every member has this mark in the directory, which zipfile reads as a whole.
    if data.count(_CENTRAL) > limits.files:
        raise ImageTooLargeError(
            f"expected an archive of at most {limits.files} files, got {label} with more",
            hint="write it with larger chunks or shards",
        )
    return zipfile.ZipFile(io.BytesIO(data))


def _members(archive: zipfile.ZipFile, limits: Limits, label: str) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Return the files of an archive by name, after checking each."""
    members: dict[PurePosixPath, zipfile.ZipInfo] = {}
    declared = 0
    for member in archive.infolist():
        if member.is_dir() or _is_of_the_system(member.filename):
            continue
        name = PurePosixPath(member.filename)
        parts = member.filename.split("/")
        problem = (
            "a name that leads out of it"
            if "\\" in member.filename or ":" in member.filename or any(part in ("", ".", "..") for part in parts)
            else "a name too long or with control characters"
            if len(member.filename) > 1024 or max(map(len, parts)) > 200 or not member.filename.isprintable()
            else "a link"
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG)
            else "an encrypted file"
            if member.flag_bits & 1
            else "an unusual compression"
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            else "a file twice"
            if name in members
            else "a file that declares more than deflate can compress"
            if member.file_size > _DENSEST * member.compress_size + 1024
            else None
        )
        if problem:
            raise UnreadableImageError(
                f"{label}: the archive contains {problem}: {member.filename[:80]!r}",
                hint="zip the OME-Zarr folder again, without links and passwords",
            )
        members[name] = member
        declared += member.file_size
        if declared > _most_bytes(limits):
            raise too_much(label, declared, _most_bytes(limits))
    return members


def _is_of_the_system(name: str) -> bool:
    """Whether a file in an archive is metadata of macOS or Windows."""
    parts = name.split("/")
    return (
        parts[0] == "__MACOSX" or parts[-1] in (".DS_Store", "Thumbs.db", "desktop.ini") or parts[-1].startswith("._")
    )


def _pieces(packed: BinaryIO | Any, left: int, label: str) -> Iterator[bytes]:
    most = left
    while piece := packed.read(_PIECE):
        left -= len(piece)
        if left < 0:
            raise too_much(label, most, most)
        yield piece


def _image_folder(members: dict[PurePosixPath, zipfile.ZipInfo], label: str) -> PurePosixPath:
    tops = {PurePosixPath(name.parts[0]) for name in members if len(name.parts) > 1}
    candidates: list[PurePosixPath] = [PurePosixPath(), *(tops if len(tops) == 1 else ())]
    for folder in candidates:
        if any(folder / name in members for name in ZARR_FILES):
            return folder
    raise UnreadableImageError(
        f"expected an OME-Zarr at the top of the archive {label}, found none",
        hint="zip the folder that contains zarr.json or .zattrs; for other formats, send the file itself",
    )
