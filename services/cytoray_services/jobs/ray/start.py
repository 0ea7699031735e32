"""Starts Ray on this machine with long timeouts, for training runs, searches and services.

Ray gives its node 30 seconds to start and its agents 15 (ray-project/ray#65983), which a busy machine exceeds; the
exception then names neither the late process nor its log. Here a node gets five minutes, a dead node is started again,
and the error contains the cause from Ray's log.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cytoray_analysis.errors import PlatformError
from cytoray_services.address_space import require_address_space
from cytoray_services.environment import environment
from cytoray_services.free_ports import free_port
from cytoray_services.jobs.ray.own import SESSIONS, forget_token, loopback_only, require_token

SECONDS_TO_START = 300.0
TRIES = 5
SECONDS_BETWEEN_WORDS = 30.0
_SECONDS_BETWEEN_TRIES = 2.0
BUSY = "the machine is busy or short of memory: reduce its load, then run the command again"
_SESSION = re.compile(r"(/[^\s=\0]*/session_[\d_-]+)")
_FAULT = re.compile(r"\b(?:Check failed:|Timed out waiting|FATAL)")
_LATE_AGENT = re.compile(r"Timed out waiting for file \S*?/?(\w+?_port)_")
_LOGS = ("raylet.err", "raylet.out", "gcs_server.err", "gcs_server.out", "dashboard_agent.log")


def patience() -> Mapping[str, str]:
    """Return the variables with which Ray and its processes have the same timeouts."""
    seconds = f"{SECONDS_TO_START:.0f}"
    return {
        "RAY_raylet_start_wait_time_s": seconds,
        "RAY_gcs_server_port_wait_time_s": seconds,
        "RAY_agent_register_timeout_ms": f"{1000 * SECONDS_TO_START:.0f}",
        "RAY_worker_register_timeout_seconds": seconds,
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": seconds,
    }


def start_ray(folder: Path, *, shielded: bool = False, known: bool = False, **options: Any) -> None:
    """Start a Ray instance on this machine that ends with this process, and connect to it.

    Other users of the machine have no part in it: see :mod:`cytoray_services.jobs.ray.own`.

    Parameters
    ----------
    folder
        Of its files, as :func:`cytoray_services.jobs.ray.own.own_folder` makes it.
    shielded
        Whether its processes ignore SIGTERM, which SLURM sends to every process of a job: they end with this process.
        known
    Whether its processes get its address; see :func:`known_address`.
        options
    Options of ``ray.init``.

    Raises
    ------
    PlatformError
        Ray does not start within five minutes or after all attempts, or the limit of virtual memory is too low.
    """
    end = time.monotonic() + SECONDS_TO_START
    began = time.monotonic()
    reason, logs, tries = "", None, 0
    require_address_space()
    require_token()
    options = {"_temp_dir": str(folder / SESSIONS), **options}
    with announced("Ray to start"):
        while tries < TRIES and time.monotonic() < end:
            tries += 1
            start = _Start(end)
            try:
                with known_address() if known else contextlib.nullcontext():
                    start.run(options, shielded=shielded)
            except OSError as error:
                if not isinstance(error, TimeoutError | ConnectionError):
                    raise  # a full disk, a read-only folder: a retry would fail in the same way
                reason, logs = start.reason(error), start.logs
            except ValueError as error:
                raise PlatformError(f"Ray does not start on this machine: {error}") from error
            except Exception as error:  # noqa: BLE001 - Ray raises bare exceptions
                reason, logs = start.reason(error), start.logs
            else:
                return
            if tries < TRIES and time.monotonic() + _SECONDS_BETWEEN_TRIES < end:
                print(f"Ray did not start ({reason}); trying again", file=sys.stderr, flush=True)
                time.sleep(_SECONDS_BETWEEN_TRIES)
    raise not_in_time(reason, tries, time.monotonic() - began, logs)


def connect_ray(address: str, *, hint: str | None = None, **options: Any) -> None:
    """Connect to the cluster at an address.

    Parameters
    ----------
    hint
        Hint if no cluster answers.
    options
        Options of ``ray.init``.

    Raises
    ------
    PlatformError
        No cluster answers there.
    """
    import ray

    forget_token()
    missing = {name: value for name, value in patience().items() if name not in os.environ}
    try:
        with announced(f"the Ray cluster at {address}"), environment(missing), _own_signals(shielded=False):
            ray.init(address=address, **options)
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, TimeoutError | ConnectionError):
            raise
        ray.shutdown()
        raise PlatformError(f"no Ray cluster answers at {address!r}: {error}", field="--on", hint=hint) from error


def not_in_time(reason: str, tries: int, seconds: float, logs: Path | None) -> PlatformError:
    """Return the error for a failed start of Ray."""
    times = "" if tries == 1 else f", started {tries} times"
    return PlatformError(
        f"Ray did not start in time on this machine ({seconds:.0f} s{times}): {reason or 'no reason given'}",
        hint=BUSY if logs is None else f"{BUSY}; Ray's logs are in {logs}",
    )


def reason_in(logs: Path) -> str:
    """Return why Ray's processes died, from their logs; empty if the logs have no reason.

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
                return f"its agent did not start within the 15 s of Ray ({late[1]}, from {name})"
            if fault := _FAULT.search(line):
                return f"{line[fault.start() :].strip()[:300]} (from {name})"
    return ""


@contextlib.contextmanager
def announced(what: str) -> Iterator[None]:
    """Print a line every half minute during a wait inside this context."""
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
    """Pass the address of a cluster that starts inside this context to its processes.

    Otherwise the watcher of Ray Train searches for the cluster itself, and fails if there is a second one on the
    machine, such as a service.
    """
    port = free_port()
    with environment({"RAY_GCS_SERVER_PORT": str(port), "RAY_ADDRESS": f"127.0.0.1:{port}"}):
        yield


class _Start:
    """One attempt to start Ray, with cleanup after a failure."""

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
        clusters = ray._private.ray_constants.ENABLE_RAY_CLUSTER
        try:
            with environment({**missing, **loopback_only()}), _own_signals(shielded):
                ray._private.ray_constants.ENABLE_RAY_CLUSTER = False  # it has read the environment already
                # The only place where Ray waits for a node, with a timeout that cannot be configured.
                ray._private.services.get_node = self._awaiting(usual)
                ray.init(address="local", **options)
        except BaseException:
            self._look()
            self._clear_away()
            raise
        finally:
            ray._private.services.get_node = usual
            ray._private.ray_constants.ENABLE_RAY_CLUSTER = clusters

    def reason(self, error: Exception) -> str:
        """Return why it failed, from Ray's logs if possible."""
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
                    raise _DiedError("its node process ended during the start")
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
        """Find the process of the node, and the folder of the logs."""
        import psutil

        for child in self._children():
            with contextlib.suppress(psutil.Error):
                if child.name() == "raylet":
                    self._raylet = child
                if self.logs is None and (session := _SESSION.search(" ".join(child.cmdline()))):
                    self.logs = Path(session[1]) / "logs"

    def _clear_away(self) -> None:
        """End the processes of a failed start, which Ray leaves running until this process ends."""
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
    except RuntimeError:  # the store of the cluster does not answer yet
        return False


@contextlib.contextmanager
def _own_signals(shielded: bool) -> Iterator[None]:
    """Keep our signal handlers while Ray starts, which replaces them, and shield its processes from signals.

    A signal in the meantime takes effect at the end, or during the wait for a node.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM} if shielded else ())
    try:
        yield
    except SystemExit as ended:  # raised by Ray's handler of SIGTERM
        if ended.code == signal.SIGTERM and callable(handler):
            handler(signal.SIGTERM, None)
        raise
    finally:
        if callable(handler):
            signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _stop_if_asked() -> None:
    """Raise the exception of a pending SIGTERM."""
    if threading.current_thread() is threading.main_thread() and signal.SIGTERM in signal.sigpending():
        raise SystemExit(signal.SIGTERM)
