"""Whether a folder of a cache is in use: all its users share a lock beside it, which goes with their processes."""

from __future__ import annotations

import fcntl
import os
from functools import cache
from pathlib import Path
from typing import BinaryIO


def use(folder: Path) -> BinaryIO:
    """Mark a folder as in use until the file returned is closed, waiting while another process makes or removes it.

    Its time of last use becomes now.
    """
    file = open_lock(folder)
    fcntl.flock(file, fcntl.LOCK_SH)
    os.utime(file.fileno())
    return file


@cache
def use_always(folder: Path) -> BinaryIO:
    """Mark a folder as in use for as long as this process lives."""
    return use(folder)


def claim(folder: Path) -> BinaryIO | None:
    """Keep all others from using a folder until the file returned is closed; None where another process uses it."""
    file = open_lock(folder)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def open_lock(folder: Path) -> BinaryIO:
    """Open the file that users of a folder lock; it stays, since others may be waiting for it."""
    path = lock_of(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("ab+")


def lock_of(folder: Path) -> Path:
    """Return the file that users of a folder lock."""
    return folder.with_name(f"{folder.name}.lock")


def users(folder: Path) -> tuple[int, ...] | None:
    """Return the processes of this machine that use a folder: none where they are elsewhere, None for no user."""
    if not lock_of(folder).exists():
        return None
    claimed = claim(folder)
    if claimed is not None:
        claimed.close()
        return None
    inode = str(lock_of(folder).stat().st_ino)
    locks = Path("/proc/locks")
    lines = [line.split() for line in locks.read_text().splitlines()] if locks.is_file() else []
    # "1: FLOCK ADVISORY READ 4711 fd:00:INODE 0 EOF"; a line with an arrow is of a process that waits.
    found = {int(line[4]) for line in lines if line[1] == "FLOCK" and line[5].rpartition(":")[2] == inode}
    return tuple(sorted(found - {0}))
