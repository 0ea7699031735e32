"""Whether a cache folder is in use: its users share a lock file next to it; the lock ends with their processes."""

from __future__ import annotations

import fcntl
import os
from functools import cache
from pathlib import Path
from typing import BinaryIO


def use(folder: Path) -> BinaryIO:
    """Mark a folder as in use until the returned file is closed; wait while another process makes or removes it.

    Also set its time of last use.
    """
    file = open_lock(folder)
    fcntl.flock(file, fcntl.LOCK_SH)
    os.utime(file.fileno())
    return file


@cache
def use_always(folder: Path) -> BinaryIO:
    """Mark a folder as in use until this process ends."""
    return use(folder)


def claim(folder: Path) -> BinaryIO | None:
    """Lock a folder exclusively until the returned file is closed; None if another process uses it."""
    file = open_lock(folder)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def open_lock(folder: Path) -> BinaryIO:
    """Open the lock file of a folder; it is never removed, because other processes may wait for it."""
    path = lock_of(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("ab+")


def lock_of(folder: Path) -> Path:
    """Return the path of the lock file of a folder."""
    return folder.with_name(f"{folder.name}.lock")


def users(folder: Path) -> tuple[int, ...] | None:
    """Return the processes on this machine that use a folder: empty for users on other machines, None if unused."""
    if not lock_of(folder).exists():
        return None
    claimed = claim(folder)
    if claimed is not None:
        claimed.close()
        return None
    inode = str(lock_of(folder).stat().st_ino)
    locks = Path("/proc/locks")
    lines = [line.split() for line in locks.read_text().splitlines()] if locks.is_file() else []
    # "1: FLOCK ADVISORY READ 4711 fd:00:INODE 0 EOF"; a line with an arrow is a waiting process.
    found = {int(line[4]) for line in lines if line[1] == "FLOCK" and line[5].rpartition(":")[2] == inode}
    return tuple(sorted(found - {0}))
