"""Starting Ray on this machine, patiently: the only place that does it for a training, a search and a service.

Ray gives its node 30 seconds to come up and the agents beside it 15 (ray-project/ray#65983), which a busy machine
exceeds; the exception then says neither which of them was late nor where its log is. Here a node gets five minutes, a
node that died is started again, and the error says what Ray's own log says.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cytoray_analysis.errors import PlatformError

SECONDS_TO_START = 300.0
TRIES = 5
SECONDS_BETWEEN_WORDS = 30.0
_SECONDS_BETWEEN_TRIES = 2.0
BUSY = "the machine is busy or short of memory: let it do less, then run the command again"
_SESSION = re.compile(r"(/[^\s=\0]*/session_[\d_-]+)")
_FAULT = re.compile(r"\b(?:Check failed:|Timed out waiting|FATAL)")
_LATE_AGENT = re.compile(r"Timed out waiting for file \S*?/?(\w+?_port)_")
_LOGS = ("raylet.err", "raylet.out", "gcs_server.err", "gcs_server.out", "dashboard_agent.log")


def patience() -> Mapping[str, str]:
    """Return the variables with which Ray and the processes that it starts wait for as long as we do."""
    seconds = f"{SECONDS_TO_START:.0f}"
    return {
        "RAY_raylet_start_wait_time_s": seconds,
        "RAY_gcs_server_port_wait_time_s": seconds,
        "RAY_agent_register_timeout_ms": f"{1000 * SECONDS_TO_START:.0f}",
        "RAY_worker_register_timeout_seconds": seconds,
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": seconds,
    }


def start_ray(*, shielded: bool = False, known: bool = False, **options: Any) -> None:
    """Start a Ray instance on this machine, for as long as this process lives, and be connected to it.

    Parameters
    ----------
    shielded
        Whether its processes do not end at a SIGTERM of their own, which SLURM sends to every process of a job: they
        end with this one.
    known
        Whether they are to know its address; see :func:`known_address`.
    options
        For ``ray.init``.

    Raises
    ------
    PlatformError
        Ray is not up after five minutes, or has died as often as it is tried.
    """
    end = time.monotonic() + SECONDS_TO_START
    began = time.monotonic()
    reason, logs, tries = "", None, 0
    with announced("Ray to start"):
        while tries < TRIES and time.monotonic() < end:
            tries += 1
            start = _Start(end)
            try:
                with known_address() if known else contextlib.nullcontext():
                    start.run(options, shielded=shielded)
            except OSError as error:
                if not isinstance(error, TimeoutError | ConnectionError):
                    raise  # a full disk, a folder that cannot be written: the same again in a minute
                reason, logs = start.reason(error), start.logs
            except ValueError as error:
                raise PlatformError(f"Ray does not start on this machine: {error}") from error
            except Exception as error:  # noqa: BLE001 - Ray raises bare exceptions
                reason, logs = start.reason(error), start.logs
            else:
                return
            if tries < TRIES and time.monotonic() + _SECONDS_BETWEEN_TRIES < end:
                print(f"Ray did not come up ({reason}); trying again", file=sys.stderr, flush=True)
                time.sleep(_SECONDS_BETWEEN_TRIES)
    raise not_in_time(reason, tries, time.monotonic() - began, logs)


def connect_ray(address: str, *, hint: str | None = None, **options: Any) -> None:
    """Be connected to the cluster at an address.

    Parameters
    ----------
    hint
        What to do where none answers.
    options
        For ``ray.init``.

    Raises
    ------
    PlatformError
        No cluster answers there.
    """
    import ray

    missing = {name: value for name, value in patience().items() if name not in os.environ}
    try:
        with announced(f"the Ray cluster at {address}"), _environment(missing), _own_signals(shielded=False):
            ray.init(address=address, **options)
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, TimeoutError | ConnectionError):
            raise
        ray.shutdown()
        raise PlatformError(f"no Ray cluster answers at {address!r}: {error}", field="--on", hint=hint) from error


def not_in_time(reason: str, tries: int, seconds: float, logs: Path | None) -> PlatformError:
    """Say that Ray does not come up."""
    times = "" if tries == 1 else f", started {tries} times"
    return PlatformError(
        f"Ray was not up in time on this machine ({seconds:.0f} s{times}): {reason or 'it does not say why'}",
        hint=BUSY if logs is None else f"{BUSY}; Ray's logs are in {logs}",
    )


def reason_in(logs: Path) -> str:
    """Return why Ray's processes died by what they wrote into their logs; empty where they wrote nothing of the kind.

    Parameters
    ----------
    logs
        The folder ``logs`` of a session.
    """
    for name in _LOGS:
        path = logs / name
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        for line in reversed(lines):
            if late := _LATE_AGENT.search(line):
                return f"its agent was not up within the 15 s that Ray gives it ({late[1]}, says {name})"
            if fault := _FAULT.search(line):
                return f"{line[fault.start() :].strip()[:300]} (says {name})"
    return ""


@contextlib.contextmanager
def announced(what: str) -> Iterator[None]:
    """Print a line every half minute for as long as something is waited for inside this context."""
    ended, began = threading.Event(), time.monotonic()

    def speak() -> None:
        while not ended.wait(SECONDS_BETWEEN_WORDS):
            waited = time.monotonic() - began
            print(f"waiting for {what} ({waited:.0f} of {SECONDS_TO_START:.0f} s)", file=sys.stderr, flush=True)

    thread = threading.Thread(target=speak, daemon=True, name="waiting")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def known_address() -> Iterator[None]:
    """Let the processes of a cluster that starts inside this context know its address.

    What Ray Train leaves to watch over a training looks for the cluster by itself otherwise, and gives up where there
    is a second one on the machine, such as a service.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with _environment({"RAY_GCS_SERVER_PORT": str(port), "RAY_ADDRESS": f"127.0.0.1:{port}"}):
        yield


class _Start:
    """One try to start Ray, and what it leaves behind when it fails."""

    def __init__(self, end: float) -> None:
        import psutil

        self._me = psutil.Process()
        self._before = {child.pid for child in self._me.children()}
        self._end = end
        self._raylet: Any = None
        self.logs: Path | None = None

    def run(self, options: Mapping[str, Any], *, shielded: bool) -> None:
        import ray
        import ray._private.services

        missing = {name: value for name, value in patience().items() if name not in os.environ}
        usual = ray._private.services.get_node
        try:
            with _environment(missing), _own_signals(shielded):
                # The one place where Ray waits for a node, for a number of seconds that it does not let us choose.
                ray._private.services.get_node = self._awaiting(usual)
                ray.init(address="local", **options)
        except BaseException:
            self._look()
            self._clear_away()
            raise
        finally:
            ray._private.services.get_node = usual

    def reason(self, error: Exception) -> str:
        """Say why it failed, in the words of Ray's logs where there are some."""
        words = str(error).strip().splitlines()
        return (reason_in(self.logs) if self.logs else "") or (words[0] if words else type(error).__name__)

    def _awaiting(self, usual: Any) -> Any:
        def get_node(gcs_address: str, node_id: str) -> Any:
            from ray._private import services, state

            nodes = state.GlobalState()  # type: ignore[no-untyped-call]
            options = services._get_gcs_client_options(gcs_address)  # type: ignore[no-untyped-call]
            nodes._initialize_global_state(options)
            while not _registered(nodes, node_id):
                _stop_if_asked()
                if self._raylet_died():
                    raise _DiedError("its node process ended while it started")
                if time.monotonic() > self._end:
                    raise TimeoutError(f"its node did not register within {SECONDS_TO_START:.0f} s")
                time.sleep(0.2)
            return usual(gcs_address, node_id)

        return get_node

    def _children(self) -> list[Any]:
        return [child for child in self._me.children() if child.pid not in self._before]

    def _raylet_died(self) -> bool:
        import psutil

        self._look()
        if self._raylet is None:
            return False
        try:
            return bool(self._raylet.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True

    def _look(self) -> None:
        """Find out which process the node's is, and where they write."""
        import psutil

        for child in self._children():
            with contextlib.suppress(psutil.Error):
                if child.name() == "raylet":
                    self._raylet = child
                if self.logs is None and (session := _SESSION.search(" ".join(child.cmdline()))):
                    self.logs = Path(session[1]) / "logs"

    def _clear_away(self) -> None:
        """End the processes of a start that failed; Ray itself leaves them until this process ends."""
        import psutil
        import ray

        ray.shutdown()
        left = []
        for child in self._children():
            with contextlib.suppress(psutil.Error):
                if child.name() in ("raylet", "gcs_server") or "/ray/" in " ".join(child.cmdline()):
                    child.kill()
                    left.append(child)
        psutil.wait_procs(left, timeout=5)


class _DiedError(RuntimeError):
    pass


def _registered(nodes: Any, node_id: str) -> bool:
    try:
        return any(node["NodeID"] == node_id and node["Alive"] for node in nodes.node_table())
    except RuntimeError:  # the cluster's own store does not answer yet
        return False


@contextlib.contextmanager
def _own_signals(shielded: bool) -> Iterator[None]:
    """Keep our handlers while Ray starts, which puts others in their place, and its processes from their signals.

    A signal that comes meanwhile takes effect at the end, or where a node is waited for.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM} if shielded else ())
    try:
        yield
    except SystemExit as ended:  # what Ray's handler makes of SIGTERM
        if ended.code == signal.SIGTERM and callable(handler):
            handler(signal.SIGTERM, None)
        raise
    finally:
        if callable(handler):
            signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _stop_if_asked() -> None:
    """Raise what a SIGTERM raises that waits behind the shield."""
    if threading.current_thread() is threading.main_thread() and signal.SIGTERM in signal.sigpending():
        raise SystemExit(signal.SIGTERM)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
