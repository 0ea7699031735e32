"""Starts, watches and restarts the driver processes of jobs, one per job."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from cytoray_analysis.errors import PlatformError
from cytoray_analysis.files import open_private
from cytoray_services.http.errors import ErrorBody
from cytoray_services.settings import Settings
from cytoray_serving.jobs.forgetting import remove_ended
from cytoray_serving.jobs.store import BUSY, JobFolder, JobStore, now

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
_END_SECONDS = 20.0  # for a driver to end after a signal
_STARTS = 4  # starts of a driver without progress, before its job fails
_TIDY_SECONDS = 3600.0
_SHOWN_LINES = 5  # of the log of a failed job


@dataclass
class _Driven:
    """The driver of a job, and its number of starts without progress."""

    process: subprocess.Popen[bytes] | None = None
    address: str = ""
    starts: int = 0
    finished: int = -1
    not_before: float = field(default_factory=time.monotonic)


class Drivers:
    """Runs the jobs of a store, each with a driver.

    Parameters
    ----------
    store
        Store of the jobs.
    settings
        Location of the registry.
    address
        Address of the Ray cluster, ``host:port``; a function if it changes when the cluster restarts.
    max_concurrent
        Maximum number of concurrent jobs; the others are queued.
    keep_days
        Days after which an ended job is removed; 0 or None for never.
    """

    def __init__(
        self,
        store: JobStore,
        settings: Settings,
        address: str | Callable[[], str],
        *,
        max_concurrent: int = 2,
        keep_days: float | None = None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._address = address
        self._max_concurrent = max_concurrent
        self._keep_days = keep_days
        self._tidied = -math.inf
        self._driven: dict[str, _Driven] = {}
        self._ended: set[str] = set()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Resume unfinished jobs, and start to watch all jobs."""
        self._thread = threading.Thread(target=self._watch, name="jobs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching and stop the drivers; their jobs continue with the next start of a service."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        running = [driven.process for driven in self._driven.values() if driven.process is not None]
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _watch(self) -> None:
        while not self._closed.wait(_LOOK_SECONDS):
            try:
                self._look()
                self._tidy_up()
            except Exception:
                log.exception("watching the jobs failed, trying again")

    def _tidy_up(self) -> None:
        """Remove jobs that ended long ago, at intervals."""
        if not self._keep_days or time.monotonic() - self._tidied < _TIDY_SECONDS:
            return
        self._tidied = time.monotonic()
        removed = remove_ended(self._store, now() - timedelta(days=self._keep_days))
        self._ended.difference_update(removed)
        if removed:
            log.info("removed %d jobs that ended %g days ago or earlier", len(removed), self._keep_days)

    def _look(self) -> None:
        """Start drivers for jobs without one, oldest first."""
        waiting = []
        for folder in self._store.folders():
            name = folder.path.name
            if name in self._ended:
                continue
            driven = self._driven.get(name)
            if driven is not None and driven.process is not None:
                status = driven.process.poll()
                if status is None:
                    if driven.address != self._cluster():
                        driven.process.kill()  # its cluster is gone; it would notice this only after a minute
                    continue
                driven.process = None
                self._note_end(folder, driven, status)
            state = self._store.readable_state(folder)
            if isinstance(state, PlatformError):
                continue  # a damaged job does not stop the others
            if state.has_ended and self._is_free(folder):
                self._ended.add(name)
                self._driven.pop(name, None)
            else:
                waiting.append((state.created, folder))
        running = sum(driven.process is not None for driven in self._driven.values())
        waiting.sort(key=lambda one: one[0])
        for _, folder in waiting[: max(0, self._max_concurrent - running)]:
            self._drive(folder)

    def _drive(self, folder: JobFolder) -> None:
        driven = self._driven.setdefault(folder.path.name, _Driven())
        if time.monotonic() < driven.not_before or not self._is_free(folder):
            return  # not yet, or the driver of a previous service still works on it
        driven.address = self._cluster()
        environment = os.environ | {
            "CYTORAY_HOME": str(self._settings.home),
            "MLFLOW_TRACKING_URI": self._settings.tracking_uri,
            "CYTORAY_ARTIFACTS": self._settings.artifacts_uri or "",
        }
        with open_private(folder.log) as output:
            driven.process = subprocess.Popen(
                [sys.executable, "-m", "cytoray_serving.jobs.driver", str(folder.path), "--address", driven.address],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _note_end(self, folder: JobFolder, driven: _Driven, status: int) -> None:
        """Count the starts of a driver that ended before its job, and fail the job without progress."""
        state = self._store.readable_state(folder)
        if status == BUSY or isinstance(state, PlatformError) or state.has_ended:
            return
        try:
            finished = len(folder.records())
        except PlatformError as fault:  # the driver cannot read them either
            log.warning("%s", fault)
            finished = driven.finished
        driven.starts = 1 if finished > driven.finished else driven.starts + 1
        driven.finished = finished
        driven.not_before = time.monotonic() + min(2.0 ** (driven.starts - 1), 30.0) - 1.0
        log.warning("the driver of %s ended with %d; start %d", folder.path.name, status, driven.starts)
        if driven.starts < _STARTS:
            return
        lines = [line for line in folder.log_text().splitlines() if line.strip()][-_SHOWN_LINES:]
        error = ErrorBody(
            error="PlatformError",
            message=f"the driver of the job ended {driven.starts} times without progress: {' / '.join(lines)}"[:2000],
            hint="see the log of the job",
        )
        time_now = now()
        folder.keep_state(
            state.model_copy(update={"state": "failed", "error": error, "ended": time_now, "updated": time_now})
        )

    def _cluster(self) -> str:
        return self._address() if callable(self._address) else self._address

    @staticmethod
    def _is_free(folder: JobFolder) -> bool:
        with folder.lock() as free:
            return free
