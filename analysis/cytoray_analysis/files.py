"""Files that appear whole or not at all, with the permissions that the umask gives them."""

from __future__ import annotations

import glob
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, content: bytes | str, *, private: bool = False) -> Path:
    """Write a file, replacing one of that name; its folder is made when it does not exist.

    Readers see the old file or the new one, and nothing stays behind when writing fails.

    Parameters
    ----------
    content
        Text is written as UTF-8, its line ends as they are.
    private
        Only the owner may read it; otherwise the umask decides, as for every new file.
    """
    with whole_file(path, private=private) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return path


@contextmanager
def whole_file(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """Give a file to write to, piece by piece, that becomes `path` when all went well; see :func:`write_whole`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_name(path)
    try:
        # Not tempfile.mkstemp: its files are for the owner alone, whatever the umask.
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
        with os.fdopen(descriptor, "wb") as file:
            yield file
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def open_private(path: Path) -> BinaryIO:
    """Open a file to append to; a new one is for its owner alone."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def draft_name(path: Path) -> Path:
    """Return a hidden name beside `path` that nothing has: where to write what is moved to `path` when it is whole."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}")


def drafts_of(path: Path) -> list[Path]:
    """Return what has such a name beside `path`: being written, or left by a process that was killed meanwhile."""
    return sorted(path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 12}"))


def draft_folder(path: Path) -> Path:
    """Make an empty folder of such a name, to be filled and then moved to `path`; its parents are made too.

    Its permissions are those that the umask gives, which those of :func:`tempfile.mkdtemp` are not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_name(path)
    draft.mkdir()
    return draft


def follow_umask(path: Path) -> None:
    """Give a file, or a folder with all that it holds, the permissions that new ones get there.

    Some libraries write files for their owner alone, and copies keep the permissions of what was copied. Links are
    left as they are.
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
