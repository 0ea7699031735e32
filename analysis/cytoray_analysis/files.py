"""Atomic writes of files and folders, with the permissions of the umask."""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of <fcntl.h> and <linux/fs.h>
# Errors of file systems that cannot exchange two names, such as NFS, and of lower layers of an overlay.
_CANNOT_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV)


def write_whole(path: Path, content: bytes | str, *, private: bool = False, durable: bool = True) -> Path:
    """Write a file, replacing an existing one; its folder is created if missing.

    Readers see the old file or the new one, and a failed write leaves nothing behind.

    Parameters
    ----------
    content
        Text is written as UTF-8, its line ends as they are.
    private
        Only the owner may read it; otherwise the umask decides, as for every new file.
    durable
        Whether it is flushed to disk on return, so that it survives a power failure. False if many files are written
        and :func:`sync_disk` follows.
    """
    with whole_file(path, private=private, durable=durable) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return path


@contextmanager
def whole_file(path: Path, *, private: bool = False, durable: bool = True) -> Iterator[BinaryIO]:
    """Yield a file for writing in pieces, which becomes `path` on success; see :func:`write_whole`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_name(path)
    try:
        # Not tempfile.mkstemp: its files are readable only by the owner, whatever the umask.
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(descriptor)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if durable:
        _sync_names(path.parent)


@contextmanager
def whole_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a path next to `path` for a new file or folder, which becomes `path` on success.

    Parameters
    ----------
    durable
        As for :func:`write_whole`.
    """
    home = draft_folder(path)
    try:
        draft = home / path.name
        yield draft
        replace_whole(draft, path, durable=durable)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def replace_whole(draft: Path, path: Path, *, durable: bool = True) -> None:
    """Move a complete file or folder to `path`, and remove what was there.

    At every instant one of the two exists completely. If the file system cannot exchange two names (NFS), the old one
    is first renamed to a hidden name next to it: a process that is killed in between leaves it there, and
    :func:`take_back` restores it.

    Parameters
    ----------
    durable
        As for :func:`write_whole`; also for the files in a folder.
    """
    if durable:
        _sync_tree(draft)
    take_back(path)
    removed: Path | None = None
    if os.path.lexists(path) and (_is_folder(path) or _is_folder(draft)):
        removed = draft if _exchanged(draft, path) else _moved_aside(draft, path)
    else:
        draft.replace(path)
    if durable:
        _sync_names(path.parent)
    if removed is not None:
        _remove(removed)


def take_back(path: Path) -> None:
    """Restore to `path` what :func:`replace_whole` renamed, if the process was killed in between."""
    aside = _aside(path)
    if not os.path.lexists(path) and os.path.lexists(aside):
        aside.rename(path)


def sync_disk(folder: Path) -> None:
    """Flush the file system of a folder to disk.

    For many files at once: one call, whatever their number. Without this system call, all file systems are flushed.

    Raises
    ------
    OSError
        Data could not be written; possibly data of another process.
    """
    call = getattr(_libc(), "syncfs", None)
    if call is None:
        os.sync()
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if call(descriptor) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
    finally:
        os.close(descriptor)


def open_private(path: Path) -> BinaryIO:
    """Open a file to append to; a new one is readable only by its owner."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def append_line(path: Path, line: str, *, durable: bool = False) -> None:
    """Append a line to a file with one writer at a time; an incomplete last line of a killed writer is removed.

    If there is no room for the whole line, nothing of it remains.
    """
    with path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        if size and not _ends_line(file, size):
            file.seek(0)
            size = file.read().rfind(b"\n") + 1
            file.truncate(size)
        try:
            file.write(line.encode() + b"\n")
            file.flush()
            if durable:
                os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), size)
            raise


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files in a folder, without those that are removed meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += Path(place, name).stat().st_size
    return total


def draft_name(path: Path) -> Path:
    """Return an unused hidden name next to `path`, for writing a draft that is then moved to `path`."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}")


def drafts_of(path: Path) -> list[Path]:
    """Return the drafts next to `path`: being written, or left by killed processes."""
    return sorted(path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 12}"))


def draft_folder(path: Path) -> Path:
    """Create an empty draft folder, to be filled and then moved to `path`; also creates its parents.

    Its permissions follow the umask, unlike those of :func:`tempfile.mkdtemp`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_name(path)
    draft.mkdir()
    return draft


def follow_umask(path: Path) -> None:
    """Give a file, or a folder with its content, the permissions of new ones.

    Some libraries write files readable only by the owner, and copies keep the permissions of the source. Links are not
    changed.
    """
    probe = draft_folder(path)  # the umask itself cannot be read without changing it for all threads
    try:
        mode = probe.stat().st_mode & 0o777
    finally:
        probe.rmdir()
    for one in (path, *path.rglob("*")) if path.is_dir() else (path,):
        if one.is_symlink():
            continue
        before = one.stat().st_mode & 0o7777
        wanted = mode if one.is_dir() else mode & 0o666
        if before & 0o777 != wanted:
            one.chmod(before & 0o7000 | wanted)


def remove_drafts(path: Path) -> None:
    """Remove the drafts that killed processes left of a file or folder; no other process may be writing it."""
    for draft in drafts_of(path):
        _remove(draft)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two names atomically; False if the file system cannot."""
    call = getattr(_libc(), "renameat2", None)
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def _moved_aside(draft: Path, path: Path) -> Path:
    """Move a draft to `path` after renaming what is there; return the new name."""
    aside = _aside(path)
    while True:
        _remove(aside)  # of a process that was killed after its last move
        path.rename(aside)
        try:
            draft.rename(path)
        except OSError as error:
            take_back(path)
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # a reader has taken it back
                raise
        else:
            return aside


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.before")


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _remove(path: Path) -> None:
    if _is_folder(path):
        shutil.rmtree(path, ignore_errors=True)  # NFS keeps files that are open
    else:
        path.unlink(missing_ok=True)


def _ends_line(file: BinaryIO, size: int) -> bool:
    file.seek(size - 1)
    return file.read(1) == b"\n"


def _sync_tree(path: Path) -> None:
    for one in (path, *path.rglob("*")) if _is_folder(path) else (path,):
        if one.is_symlink():
            continue
        if one.is_dir():
            _sync_names(one)
        else:
            with one.open("rb") as file:
                os.fsync(file.fileno())


def _sync_names(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without such flushing
            raise
    finally:
        os.close(descriptor)


@cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)
