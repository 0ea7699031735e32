"""What the machine refuses, such as room on a disk, as a sentence that names the path and what to do.

Libraries say it in many ways: an ``OSError`` with a path or without, a text of their own, an error of SQLite. What is
none of these stays what it is, so that our own faults keep their traceback.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from cytoray_analysis.errors import CytorayError, PlatformError
from cytoray_services.registry.database_faults import database_fault, is_of_database

_LITTLE_ROOM = 2**20
_ROOM = "free some room there, or name another folder"
_RIGHTS = "name a folder that you may write to; CYTORAY_HOME names the one for models and training runs"
# What each error of the system is called here, and what to do.
_SAID: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", _ROOM),
    errno.EDQUOT: ("your share of the disk is used up", _ROOM),
    errno.EROFS: ("the file system is read-only", _RIGHTS),
    errno.EACCES: ("permission denied", _RIGHTS),
    errno.EPERM: ("it is not permitted", _RIGHTS),
    errno.EIO: ("the disk or the network to it fails", "see the system's log, or use another disk"),
    errno.ENAMETOOLONG: ("the name is too long", "use shorter names for folders and files"),
    errno.EMFILE: ("too many files are open", "raise the limit with: ulimit -n 65536"),
    errno.ENFILE: ("too many files are open on this machine", "end other programs, then run the command again"),
    errno.ENOTDIR: ("a part of the path is a file and no folder", "name a folder"),
    errno.EISDIR: ("it is a folder and no file", "name a file"),
    errno.EEXIST: ("something of that name is there already", "name another path, or move what is there away"),
    errno.ENOTEMPTY: ("the folder is not empty", "name another folder, or move what is there away"),
    errno.ELOOP: ("its links lead in a circle", "correct the links"),
    errno.ENOENT: ("there is no such file or folder", "see whether the path is right and still there"),
    errno.ESTALE: ("the network's file system lost it", "see whether the folder is still mounted"),
    errno.EBUSY: ("something else uses it", "wait for it, then run the command again"),
    errno.EFBIG: ("the file would be larger than is allowed here", "use another disk, or raise: ulimit -f"),
}
# The same, as libraries that have no error numbers say it.
_WORDS: tuple[tuple[str, int], ...] = (
    (r"no space left on device|disk is full|os error 28\b", errno.ENOSPC),
    (r"disk quota exceeded|os error 122\b", errno.EDQUOT),
    (r"read-only file system|readonly database|os error 30\b", errno.EROFS),
    (r"permission denied|os error 13\b", errno.EACCES),
    (r"input/output error|disk i/o error|os error 5\b", errno.EIO),
)
_MEMORY = "not enough memory"
_LESS_MEMORY = "use smaller images or a smaller batch, end other programs, or use a machine with more memory"


def machine_fault(error: BaseException) -> CytorayError | None:
    """Return the sentence for an error that the machine has caused; None for any other.

    Parameters
    ----------
    error
        Its traceback is searched for the path, where it does not name one.
    """
    for one in _chain(error):
        if isinstance(one, CytorayError):
            return one
        if isinstance(one, MemoryError):
            return PlatformError(_MEMORY, hint=_LESS_MEMORY)
        if is_of_database(one):
            said = str(one).strip().partition("\n")[0]
            number = _number_in(said)
            return database_fault(said) if number is None else _sentence(number, _path_of(one, number), said)
        if isinstance(one, OSError):
            return _system_fault(one)
        if number := _number_in(str(one)):
            return _sentence(number, _path_of(one, number), str(one))
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it was raised for, the first one last."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        original = getattr(one, "orig", None)  # as SQLAlchemy keeps the error of the driver
        one = original if isinstance(original, BaseException) else one.__cause__


def _system_fault(error: OSError) -> CytorayError | None:
    number = error.errno or _number_in(str(error))
    if number == errno.ENOMEM:
        return PlatformError(_MEMORY, hint=_LESS_MEMORY)
    if number is None:
        # Writers in C say how much they wrote and not why they stopped.
        full = _path_of(error, errno.ENOSPC)
        return None if full is None or not _is_full(full) else _sentence(errno.ENOSPC, full, str(error))
    named = error.filename2 or error.filename
    if number == errno.ENOENT and (named is None or _is_ours(Path(os.fsdecode(named)))):
        return None
    if number not in _SAID:
        return None
    path = Path(os.fsdecode(named)) if isinstance(named, str | bytes | os.PathLike) else _path_of(error, number)
    return _sentence(number, path, str(error))


def _sentence(number: int, path: Path | None, said: str) -> PlatformError:
    what, remedy = _SAID[number]
    where = f"{path}: {what}" if path is not None else f"{what} ({said})"
    return PlatformError(where, field=None if path is None else str(path), hint=remedy)


def _number_in(text: str) -> int | None:
    return next((number for words, number in _WORDS if re.search(words, text, re.IGNORECASE)), None)


def _path_of(error: BaseException, number: int) -> Path | None:
    """Return the path that the error is about: of a full disk the first on it, else the innermost that was at work."""
    paths = list(_paths_at_work(error.__traceback__))
    if number in (errno.ENOSPC, errno.EDQUOT):
        home = os.environ.get("CYTORAY_HOME") or ".cytoray"
        paths += [Path(home).absolute(), Path(tempfile.gettempdir()), Path.cwd()]
        return next((path for path in paths if _is_full(path)), None)
    if number == errno.EROFS:
        return next((path for path in paths if not os.access(_nearest(path), os.W_OK)), None)
    return paths[0] if paths else None


def _paths_at_work(trace: TracebackType | None) -> Iterator[Path]:
    """Yield paths and names of open files among the variables of the functions that were at work, innermost first."""
    frames = []
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    for frame in reversed(frames):
        for value in frame.f_locals.values():
            name = value if isinstance(value, Path) else getattr(value, "name", None)
            if isinstance(name, Path) or (isinstance(name, str) and name.startswith("/")):
                yield Path(name)


def _nearest(path: Path) -> Path:
    return next((place for place in (path, *path.absolute().parents) if place.exists()), Path("/"))


def _is_full(path: Path) -> bool:
    try:
        disk = os.statvfs(_nearest(path))
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _LITTLE_ROOM or (disk.f_files > 0 and disk.f_favail == 0)


def _is_ours(path: Path) -> bool:
    """Whether a file that is missing belongs to the installation, which is a fault of ours."""
    return any(path.is_relative_to(place) for place in {sys.prefix, str(Path(__file__).parents[2])})
