"""Protects a Ray instance from other users of this machine.

By default everyone can read and write the session folder of Ray, including sockets; Ray listens on all addresses, and
stores one token for all instances in a file that everyone can read. Here each instance is in a private folder of its
user, listens on the loopback address, and requires a token that is only in the environment of its processes.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

SESSIONS = "ray"  # a subfolder, because Ray gives everyone rights in its folder
# Maximum length of the path of a Unix socket, and what Ray adds to the folder.
_LONGEST = 107
_RAYS_PART = len(f"/{SESSIONS}/session_2026-01-01_00-00-00_000000_4194304/sockets/dash_MetricsHead")
_NAME = "cytoray-"
_RANDOM = 8  # letters that mkdtemp adds
_USUAL = "/tmp"  # noqa: S108 - mkdtemp creates a folder with a random name there
_LOOPBACK, _GLOO = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "GLOO_SOCKET_IFNAME"
_SET: dict[str, str] = {}  # variables of this process that :func:`require_token` has set
_MODE, _TOKEN, _TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def own_folder(room: int = _RAYS_PART) -> Path:
    """Create a private folder with a path that is short enough for sockets.

    It is in ``RAY_TMPDIR`` or ``TMPDIR``; if that is too long for sockets, in ``/tmp``, with a warning.

    Parameters
    ----------
    room
        Length of the longest path of a socket relative to the folder, in bytes.
    """
    base = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    most = _LONGEST - room - len(f"/{_NAME}") - _RANDOM
    if len(os.fsencode(base)) > most:
        log.warning("%s is too long for the sockets of Ray (at most %d bytes); using %s", base, most, _USUAL)
        base = _USUAL
    return Path(tempfile.mkdtemp(prefix=_NAME, dir=base))


@contextmanager
def passing_folder() -> Iterator[Path]:
    """Yield such a folder; it is removed at the end, but stays with Ray's logs after an error."""
    folder = own_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def loopback_only() -> Mapping[str, str]:
    """Return the variables with which a Ray instance and its workers listen only on the loopback address.

    Ray does so on systems without clusters of several machines; otherwise it replaces a given address by one that other
    machines can reach. Workers of a training run connect through PyTorch's store, which has no such variable, and
    communicate by gloo, or by NCCL, whose choice is unchanged.
    """
    interface = {_GLOO: os.environ.get(_GLOO, "lo")} if sys.platform == "linux" else {}
    return {_LOOPBACK: "0", **interface}


def require_token() -> None:
    """Make each Ray instance of this process require its own token.

    Existing variables for Ray's tokens are kept, and the new one until :func:`forget_token`.
    """
    wanted = {_MODE: "token"} | ({} if _TOKEN_FILE in os.environ else {_TOKEN: secrets.token_hex(32)})
    new = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(new)
    _SET.update(new)
    _read_again()


def forget_token() -> None:
    """Undo :func:`require_token`, because a remote cluster has its own token."""
    for name, value in _SET.items():
        if os.environ.get(name) == value:
            del os.environ[name]
    if _SET:
        _SET.clear()
        _read_again()


def _read_again() -> None:
    """Make Ray read mode and token from the environment again, which it otherwise does once per process."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
