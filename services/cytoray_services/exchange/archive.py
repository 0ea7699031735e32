"""ZIP archives: reproducible when written, and untrusted when unpacked."""

from __future__ import annotations

import re
import shutil
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from cytoray_analysis.errors import BundleError, RequestError
from cytoray_analysis.files import draft_folder
from cytoray_analysis.plural import counted

MOST_BYTES = 8 * 2**30  # of an unpacked archive
MOST_FILES = 1000
# DEFLATE reaches at most about 1032 to 1; weights hardly shrink.
MOST_EXPANSION = 200
_SMALL = 2**24  # bytes below which expansion is harmless
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time in a ZIP archive
_CHUNK = 2**20
_DRIVE = re.compile(r"^[A-Za-z]:")


def write_archive(folder: Path, target: Path) -> None:
    """Pack the files of a folder: sorted names, fixed times and modes, so that the same files give the same bytes.

    Parameters
    ----------
    folder
        The folder; its own name is not part of the names in the archive.
    target
        The archive; an existing one is replaced in one step.
    """
    with appears_whole(target) as draft, zipfile.ZipFile(draft, "w") as archive:
        for path in sorted(entry for entry in folder.rglob("*") if entry.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, on every system
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as packed:
                shutil.copyfileobj(source, packed, _CHUNK)


def unpack_archive(source: Path, folder: Path) -> None:
    """Unpack an untrusted archive into an empty folder.

    Parameters
    ----------
    source
        The archive.
    folder
        The target, which exists.

    Raises
    ------
    BundleError
        It is not a ZIP archive or damaged, a name leads out of the folder, an entry is a link, or its files are too
        many or too large.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            entries = archive.infolist()
            _refuse_too_much(source, entries)
            for entry in entries:
                _refuse_name(source, entry)
            left = MOST_BYTES
            for entry in entries:
                if not entry.is_dir():
                    left -= _unpack(archive, entry, folder)
    # zipfile raises NotImplementedError for an unknown compression, RuntimeError for a password.
    except (zipfile.BadZipFile, NotImplementedError, EOFError, UnicodeDecodeError, RuntimeError) as error:
        raise BundleError(
            f"expected a readable ZIP archive, got {source}: {error}",
            field=str(source),
            hint="use a bundle folder, a ZIP of one, or a BioImage Model Zoo package",
        ) from error


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> int:
    target = folder / PurePosixPath(entry.filename)
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with archive.open(entry) as packed, target.open("xb") as file:
        while chunk := packed.read(_CHUNK):
            written += len(chunk)
            if written > entry.file_size:  # the sizes listed in the archive are wrong
                raise zipfile.BadZipFile(f"{entry.filename} is larger than listed in the archive")
            file.write(chunk)
    return written


def _refuse_too_much(source: Path, entries: list[zipfile.ZipInfo]) -> None:
    total = sum(entry.file_size for entry in entries)
    packed = max(sum(entry.compress_size for entry in entries), 1)
    if len(entries) > MOST_FILES or total > MOST_BYTES or (total > _SMALL and total > MOST_EXPANSION * packed):
        raise BundleError(
            f"{source}: expected at most {MOST_FILES} files, {MOST_BYTES // 2**30} GiB and {MOST_EXPANSION} times the "
            f"size of the archive, got {counted(len(entries), 'file')}, {total / 2**20:.0f} MiB and "
            f"{total / packed:.0f} times",
            field=str(source),
            hint="such an archive can fill the disk; if you trust it, unpack it yourself and import the folder",
        )


def _refuse_name(source: Path, entry: zipfile.ZipInfo) -> None:
    name, mode = entry.filename, entry.external_attr >> 16
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or _DRIVE.match(name) or "\0" in name:
        raise BundleError(
            f"{source} contains {name!r}, a path outside its folder",
            field=str(source),
            hint="such archives can overwrite other files; do not unpack it",
        )
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise BundleError(
            f"{source}: {name!r} is a link or a device", field=str(source), hint="an archive may contain files only"
        )
    if entry.flag_bits & 1:
        raise BundleError(f"{source}: {name!r} is encrypted", field=str(source), hint="pack it without a password")


@contextmanager
def appears_whole(target: Path) -> Iterator[Path]:
    """Yield a path to write to; it becomes `target`, a file or folder, if there is no error, and is removed otherwise.

    Raises
    ------
    RequestError
        `target` is a folder that is not empty.
    """
    if target.is_dir() and any(target.iterdir()):
        raise RequestError(
            f"expected a new or an empty folder, got {target}", field="--to", hint="use another, or remove it first"
        )
    home = draft_folder(target)
    draft = home / target.name
    try:
        yield draft
        draft.replace(target)  # replaces only an empty folder: files that appeared meanwhile stay
    finally:
        shutil.rmtree(home, ignore_errors=True)
