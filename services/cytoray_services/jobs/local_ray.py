"""A Ray cluster of this machine, one for each state folder: started by the first job, there until somebody ends it.

It is Ray's own, with the dashboard and the job API of any other, on free ports of this machine, and with a token of its
own: neither other clusters nor other users of the machine are in its way. Nothing here ever calls ``ray stop``, which
would end theirs too.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from cytoray_analysis.errors import PlatformError
from cytoray_analysis.files import write_whole
from cytoray_services.jobs.ray_start import SECONDS_TO_START, TRIES, announced, not_in_time, patience, reason_in
from cytoray_services.jobs.scale import Scale
from cytoray_services.settings import Settings

log = logging.getLogger(__name__)

_OBJECT_STORE = 2**28
_STARTED = "Ray runtime started"
# What another cluster may have left here; ours has its own.
_ELSEWHERE = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_GCS_SERVER_PORT", "RAY_AUTH_TOKEN_PATH")


class LocalCluster(BaseModel):
    """What is kept of a running cluster.

    Parameters
    ----------
    address
        Of its dashboard and job API.
    token
        That Ray asks for.
    pid, started
        Of the process whose end is that of the cluster; seconds since the epoch, since numbers come again.
    folder
        Of Ray's own files; short, since the path of a Unix socket may have 107 bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str
    token: str
    pid: int
    started: float
    folder: Path

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        import psutil

        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
        return same

    @property
    def ending(self) -> str:
        """How it is ended."""
        return f"kill {self.pid}"


class LocalRay:
    """Finds and starts the cluster of a state folder."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.home / "ray"
        self._record = self._folder / "local.json"

    def running(self) -> LocalCluster | None:
        """Return the cluster, if one runs."""
        known = self._known()
        return known if known is not None and known.runs else None

    def start(self, scale: Scale) -> LocalCluster:
        """Return the cluster; where none runs, one is started with room for a job.

        Raises
        ------
        PlatformError
            Ray is not up in time, or has died as often as it is tried.
        """
        with self._alone():
            known = self._known()
            if known is not None and known.runs:
                return known
            if known is not None:
                shutil.rmtree(known.folder, ignore_errors=True)
            cluster = self._patiently(max(os.cpu_count() or 1, scale.workers * scale.cpus_per_worker))
        log.warning("a Ray cluster of this machine runs at %s; end it with: %s", cluster.address, cluster.ending)
        return cluster

    def _patiently(self, cpus: int) -> LocalCluster:
        """Start it, and start it again where its node died."""
        began, tries = time.monotonic(), 0
        until = began + SECONDS_TO_START
        with announced("Ray to start"):
            while True:
                tries += 1
                try:
                    return self._start(cpus, until)
                except _NotUpError as error:
                    if tries == TRIES or time.monotonic() > until:
                        raise not_in_time(
                            str(error), tries, time.monotonic() - began, self._folder / "local.log"
                        ) from error
                    log.warning("Ray did not come up (%s); trying again", error)

    def _start(self, cpus: int, until: float) -> LocalCluster:
        import psutil

        token, folder = secrets.token_hex(32), Path(tempfile.mkdtemp(prefix="cytoray-"))
        dashboard, client, agent = _free_ports(3)
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
        command += ["--port=0", f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}"]
        command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--temp-dir={folder}"]
        command += [f"--num-cpus={cpus}", f"--object-store-memory={_OBJECT_STORE}"]
        environment = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
        environment = {**patience(), **environment}
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        # Jobs call cytoray by its name: that of this installation.
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
        output = self._folder / "local.log"
        with output.open("wb") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        cluster = LocalCluster(
            address=f"http://127.0.0.1:{dashboard}",
            token=token,
            pid=process.pid,
            started=psutil.Process(process.pid).create_time(),
            folder=folder,
        )
        try:
            _wait(cluster, process, output, until)
        except BaseException:
            _end(process)
            shutil.rmtree(folder, ignore_errors=True)
            raise
        write_whole(self._record, cluster.model_dump_json() + "\n", private=True)
        return cluster

    def _known(self) -> LocalCluster | None:
        try:
            return LocalCluster.model_validate_json(self._record.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise PlatformError(
                f"expected what is known of a local Ray cluster in {self._record}, got something else",
                hint="end that cluster, if there is one, and delete the file",
            ) from error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let two commands that begin at the same time start one cluster."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)  # the token lies there
        with (self._folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class _NotUpError(Exception):
    """Ray did not come up; another try may do better."""


def _wait(cluster: LocalCluster, process: subprocess.Popen[bytes], output: Path, until: float) -> None:
    """Wait until the job API answers and the cluster has its node."""
    import httpx

    headers = {"Authorization": f"Bearer {cluster.token}"}
    reason = ""
    while time.monotonic() < until and process.poll() is None and not reason:
        try:
            httpx.get(f"{cluster.address}/api/version", headers=headers, timeout=5).raise_for_status()
            if _STARTED in output.read_text(errors="replace"):
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
        reason = _reason(cluster.folder)  # Ray would wait on for a node that has died
    lines = output.read_text(errors="replace").strip().splitlines()
    raise _NotUpError(reason or _reason(cluster.folder) or (lines[-1] if lines else "it says nothing"))


def _reason(folder: Path) -> str:
    return next((reason for logs in sorted(folder.glob("session_2*/logs")) if (reason := reason_in(logs))), "")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End `ray start` and what it started; it has a session of its own."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
