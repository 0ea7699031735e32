"""The local Ray cluster of this machine, one per state folder, started by the first job and ended by hand.

It has the dashboard and the job API of any Ray cluster, on free ports and with its own token, so that other clusters
and other users of the machine do not conflict with it. Nothing here calls ``ray stop``, which would also end other
clusters.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from cytoray_analysis.errors import PlatformError
from cytoray_analysis.files import write_whole
from cytoray_services.address_space import require_address_space
from cytoray_services.free_ports import free_ports
from cytoray_services.jobs.ray.own import SESSIONS, loopback_only, own_folder
from cytoray_services.jobs.ray.start import SECONDS_TO_START, TRIES, announced, not_in_time, patience, reason_in
from cytoray_services.jobs.scale import Scale
from cytoray_services.locks import locked
from cytoray_services.settings import Settings

log = logging.getLogger(__name__)

_OBJECT_STORE = 2**28
_STARTED = "Ray runtime started"
# Variables of other clusters; this cluster has its own.
_ELSEWHERE = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_GCS_SERVER_PORT", "RAY_AUTH_TOKEN_PATH")


class LocalCluster(BaseModel):
    """The record of a running cluster.

    Parameters
    ----------
    address
        Address of its dashboard and job API.
    token
        Token of Ray.
    pid, started
        ID of the main process of the cluster, and its start in seconds since the epoch, because IDs are reused.
    folder
        Folder of Ray's files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str
    token: str
    pid: int
    started: float
    folder: Path

    @property
    def runs(self) -> bool:
        """Whether its process runs."""
        import psutil

        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
        return same

    @property
    def ending(self) -> str:
        """The command that ends it."""
        return f"kill {self.pid}"


class LocalRay:
    """Finds or starts the cluster of a state folder."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.home / "ray"
        self._record = self._folder / "local.json"

    def running(self) -> LocalCluster | None:
        """Return the running cluster, if any."""
        known = self._known()
        return known if known is not None and known.runs else None

    def start(self, scale: Scale) -> LocalCluster:
        """Return the running cluster, or start one with room for a job.

        Raises
        ------
        PlatformError
            Ray does not start in time or after all attempts, or the limit of virtual memory is too low.
        """
        with self._alone():
            known = self._known()
            if known is not None and known.runs:
                return known
            require_address_space()
            if known is not None:
                shutil.rmtree(known.folder, ignore_errors=True)
            cluster = self._patiently(max(os.cpu_count() or 1, scale.workers * scale.cpus_per_worker))
        log.warning("a Ray cluster of this machine runs at %s; end it with: %s", cluster.address, cluster.ending)
        return cluster

    def _patiently(self, cpus: int) -> LocalCluster:
        """Start it, and try again if its node died."""
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
                    log.warning("Ray did not start (%s); trying again", error)

    def _start(self, cpus: int, until: float) -> LocalCluster:
        import psutil

        token, folder = secrets.token_hex(32), own_folder()
        dashboard, client, agent = free_ports(3)
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
        command += ["--port=0", f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}"]
        command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--temp-dir={folder / SESSIONS}"]
        command += [f"--num-cpus={cpus}", f"--object-store-memory={_OBJECT_STORE}"]
        environment = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
        environment = {**patience(), **environment, **loopback_only()}
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        # Jobs call cytoray by name: use this installation.
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
                f"expected the record of a local Ray cluster in {self._record}, got something else",
                hint="end the cluster, if it runs, and delete the file",
            ) from error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock, so that two commands at the same time start only one cluster."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)  # it contains the token
        with locked(self._folder / ".lock"):
            yield


class _NotUpError(Exception):
    """Ray did not start; another attempt may succeed."""


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
        reason = _reason(cluster.folder)  # Ray would continue to wait for a dead node
    lines = output.read_text(errors="replace").strip().splitlines()
    raise _NotUpError(reason or _reason(cluster.folder) or (lines[-1] if lines else "no reason given"))


def _reason(folder: Path) -> str:
    return next(
        (reason for logs in sorted(folder.glob(f"{SESSIONS}/session_2*/logs")) if (reason := reason_in(logs))), ""
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End `ray start` and its child processes, which have their own session."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
