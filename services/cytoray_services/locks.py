"""File locks between processes of this machine; a lock is released when its process ends.

On a shared file system they work between machines if its ``flock`` does. Caches, whose users share a lock, use
:mod:`cytoray_services.in_use`; the audit trail has a lock of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the exclusive lock of a file; wait while another process or thread holds it.

    The file and its folder are created if needed, and the file is not removed.
    """
    with _lock(path):
        yield


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock of a file and yield True, as :func:`locked`; yield False at once if it is taken."""
    lock = _lock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _lock(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A lock without flock is not released when its process dies, so raise an error instead.
    return FileLock(path, fallback_to_soft=False)
