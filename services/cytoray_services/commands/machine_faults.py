"""Faults of the machine, such as a full disk, as one message that names the path and the remedy.

Libraries report them as an ``OSError`` with or without a path, as text of their own, or as an error of SQLite. All
other errors are left alone, so that our own faults keep their traceback.
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
_ROOM = "free space there, or use another folder"
_RIGHTS = "use a folder that you can write to; CYTORAY_HOME sets the one for models and training runs"
# The message and the remedy for each error number.
_SAID: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", _ROOM),
    errno.EDQUOT: ("the disk quota is exceeded", _ROOM),
    errno.EROFS: ("the file system is read-only", _RIGHTS),
    errno.EACCES: ("permission denied", _RIGHTS),
    errno.EPERM: ("the operation is not permitted", _RIGHTS),
    errno.EIO: ("the disk, or its network connection, fails", "see the system log, or use another disk"),
    errno.ENAMETOOLONG: ("the name is too long", "use shorter names for folders and files"),
    errno.EMFILE: ("too many files are open", "raise the limit with: ulimit -n 65536"),
    errno.ENFILE: ("too many files are open on this machine", "close other programs, then run the command again"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "use a folder"),
    errno.EISDIR: ("it is a folder, not a file", "use a file"),
    errno.EEXIST: ("a file of this name exists already", "use another path, or move the file away"),
    errno.ENOTEMPTY: ("the folder is not empty", "use another folder, or move its content away"),
    errno.ELOOP: ("its symbolic links form a loop", "correct the links"),
    errno.ENOENT: ("there is no such file or folder", "check that the path is correct and still exists"),
    errno.ESTALE: ("the network file system lost it", "check that the folder is still mounted"),
    errno.EBUSY: ("it is in use", "wait, then run the command again"),
    errno.EFBIG: ("the file would exceed the maximum file size", "use another disk, or raise the limit: ulimit -f"),
}
# The same, in the words of libraries without error numbers.
_WORDS: tuple[tuple[str, int], ...] = (
    (r"no space left on device|disk is full|os error 28\b", errno.ENOSPC),
    (r"disk quota exceeded|os error 122\b", errno.EDQUOT),
    (r"read-only file system|readonly database|os error 30\b", errno.EROFS),
    (r"permission denied|os error 13\b", errno.EACCES),
    (r"input/output error|disk i/o error|os error 5\b", errno.EIO),
)
_MEMORY = "not enough memory"
_LESS_MEMORY = "use smaller images or a smaller batch, close other programs, or use a machine with more memory"


def machine_fault(error: BaseException) -> CytorayError | None:
    """Return the message for an error that the machine caused; None for any other error.

    Parameters
    ----------
    error
        If it names no path, its traceback is searched for one.
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
    """Yield an error and its causes, the original one last."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        original = getattr(one, "orig", None)  # where SQLAlchemy stores the error of the driver
        one = original if isinstance(original, BaseException) else one.__cause__


def _system_fault(error: OSError) -> CytorayError | None:
    number = error.errno or _number_in(str(error))
    if number == errno.ENOMEM:
        return PlatformError(_MEMORY, hint=_LESS_MEMORY)
    if number is None:
        # Writers in C report how much they wrote, not why they stopped.
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
    """Return the path of the error: the first path on a full disk, otherwise the innermost one in the traceback."""
    paths = list(_paths_at_work(error.__traceback__))
    if number in (errno.ENOSPC, errno.EDQUOT):
        home = os.environ.get("CYTORAY_HOME") or ".cytoray"
        paths += [Path(home).absolute(), Path(tempfile.gettempdir()), Path.cwd()]
        return next((path for path in paths if _is_full(path)), None)
    if number == errno.EROFS:
        return next((path for path in paths if not os.access(_nearest(path), os.W_OK)), None)
    return paths[0] if paths else None


def _paths_at_work(trace: TracebackType | None) -> Iterator[Path]:
    """Yield paths and names of open files in the local variables of the traceback, innermost first."""
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
    """Whether a missing file belongs to the installation, which is our own fault."""
    return any(path.is_relative_to(place) for place in {sys.prefix, str(Path(__file__).parents[2])})
