"""What another user of the same machine sees: asked in a process that has become that user."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest

OTHER_USER = 65534


def require_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")


def entered_by_others(paths: Iterable[Path]) -> list[str]:
    """Return the files and folders that another user can read, and the sockets that answer one."""
    asked = [path for path in paths if path.exists()]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(OTHER_USER)
            os.setuid(OTHER_USER)
            open_ones = [str(path) for path in asked if _opens(path)]
            os.write(writing, json.dumps(open_ones).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        found: list[str] = json.load(answer)
    os.waitpid(child, 0)
    return found


def _opens(path: Path) -> bool:
    try:
        if path.is_socket():
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_UNIX, kind) as one:
                    try:
                        one.connect(str(path))
                    except OSError as error:
                        if isinstance(error, PermissionError):
                            return False
                    else:
                        return True
            return False
        return os.access(path, os.R_OK)
    except PermissionError:
        return False


def listening(processes: Iterable[psutil.Process]) -> list[tuple[str, int, str]]:
    """Return the addresses and ports on which processes listen, with their names."""
    found = []
    for process in processes:
        for one in process.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN:
                found.append((one.laddr.ip, one.laddr.port, " ".join(process.cmdline())))
    return found


def sockets_of(processes: Iterable[psutil.Process]) -> list[Path]:
    """Return the Unix sockets of processes that have a name in the file system."""
    names = {str(one.laddr) for process in processes for one in process.net_connections("unix")}
    return [Path(name) for name in sorted(names) if name.startswith("/")]


def files_of(processes: Iterable[psutil.Process], but: tuple[str, ...]) -> list[Path]:
    """Return the files that processes hold open, outside some folders."""
    names = {one.path for process in processes for one in process.open_files()}
    return [Path(name) for name in sorted(names) if not name.startswith(but)]
