"""The jobs of a service: taken, started, watched over, told about. Every job has a driver, a process of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from cytoray_analysis.each import require_each
from cytoray_analysis.errors import PlatformError, RequestError
from cytoray_analysis.files import open_private
from cytoray_analysis.tasks import get_task
from cytoray_services.http_errors import ErrorBody
from cytoray_services.registry import load_bundle
from cytoray_services.settings import Settings
from cytoray_serving.answers import form_named
from cytoray_serving.inputs import is_movie
from cytoray_serving.jobs.driver import BUSY
from cytoray_serving.jobs.plan import check_places
from cytoray_serving.jobs.request import JobList, JobRequest, JobStatus
from cytoray_serving.jobs.store import Job, JobFolder, JobStore, new_id, now
from cytoray_serving.jobs.work import ZARR
from cytoray_serving.places import Allowed
from cytoray_serving.replica import ReplicaOptions
from cytoray_serving.schema import ModelAnswered
from cytoray_serving.steps import Step, check_steps

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
_END_SECONDS = 20.0  # for a driver to end by itself
_STARTS = 4  # of a driver that gets nothing further, before its job has failed
_TOLD_LINES = 5  # of the log, when a job has failed


@dataclass
class _Driven:
    """A job's driver, and how often it was started without getting further."""

    process: subprocess.Popen[bytes] | None = None
    address: str = ""
    starts: int = 0
    finished: int = -1
    not_before: float = field(default_factory=time.monotonic)


class JobService:
    """Takes jobs and sees them through.

    Parameters
    ----------
    folder
        Where jobs are kept.
    settings
        Where the registry is.
    allowed
        Places that jobs may read and write.
    address
        Of the Ray cluster that works, ``host:port``; a function where it changes when the cluster starts again.
    workers
        Processes that one job gets at most.
    at_once
        Jobs that are worked on at a time; the others wait.
    options
        How workers run the models.
    cpus_per_worker, gpus_per_worker
        Cores and cards (or a share of one) that each worker holds of its node.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        allowed: Allowed,
        address: str | Callable[[], str],
        *,
        workers: int = 2,
        at_once: int = 2,
        options: ReplicaOptions | None = None,
        cpus_per_worker: float = 1.0,
        gpus_per_worker: float = 0.0,
    ) -> None:
        self._store = JobStore(folder)
        self._settings = settings
        self._allowed = allowed
        self._address = address
        self._workers = workers
        self._at_once = at_once
        self._options = options or ReplicaOptions()
        self._cpus_per_worker = cpus_per_worker
        self._gpus_per_worker = gpus_per_worker
        self._driven: dict[str, _Driven] = {}
        self._ended: set[str] = set()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    async def submit(self, steps: tuple[str, ...], request: JobRequest, owner: str) -> JobStatus:
        """Take a job.

        Parameters
        ----------
        steps
            Exact references of the models that work one after the other, a segmentation that finds objects first.
        owner
            Who asks.

        Raises
        ------
        InputError
            There is no image, a place may not be used, there is something at the output, the models do not suit each
            other or what is told of the objects, or their answers have no such form.
        PlatformError
            A model cannot be fetched, or a store does not answer.
        """
        return await asyncio.to_thread(self._submit, steps, request, owner)

    async def show(self, job_id: str) -> JobStatus:
        """Return where a job stands.

        Raises
        ------
        JobNotFoundError
            There is none of that name.
        """
        return await asyncio.to_thread(lambda: self._store.find(job_id).state())

    async def list(self) -> JobList:
        """Return where all jobs stand, the newest first, and which are damaged."""
        return await asyncio.to_thread(self._store.states)

    async def stop(self, job_id: str) -> JobStatus:
        """Cancel a job; one that has ended stays as it is."""

        def cancel() -> JobStatus:
            folder = self._store.find(job_id)
            if not folder.state().has_ended:
                folder.cancel()
            return folder.state()

        return await asyncio.to_thread(cancel)

    async def logs(self, job_id: str) -> str:
        """Return what the processes of a job said, the last megabyte of it."""
        return await asyncio.to_thread(lambda: self._store.find(job_id).log_text())

    async def events(self, job_id: str) -> AsyncIterator[JobStatus]:
        """Yield where a job stands, now and whenever that changes, until it has ended."""
        told = None
        while True:
            status = await self.show(job_id)
            if status != told:
                told = status
                yield status
            if status.has_ended:
                return
            await asyncio.sleep(_LOOK_SECONDS)

    def start(self) -> None:
        """Take up the jobs that are not finished, and watch over all from now on."""
        self._thread = threading.Thread(target=self._watch, name="jobs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching, and the drivers; their jobs go on when a service is started again."""
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

    def _submit(self, steps: tuple[str, ...], request: JobRequest, owner: str) -> JobStatus:
        if not steps:
            raise RequestError("expected at least one model, got none", field="model")
        check_places(request, self._allowed)
        loaded = [load_bundle(reference, self._settings) for reference in steps]
        tasks = [get_task(bundle.spec.task.name, bundle.spec.task.arguments) for bundle, _ in loaded]
        models = [
            ModelAnswered(
                name=bundle.spec.name if version is None else version.name,
                version=None if version is None else version.version,
                digest=bundle.digest,
            )
            for bundle, version in loaded
        ]
        if request.masks is not None and request.boxes is not None:
            raise RequestError("expected masks or boxes, got both", field="boxes", hint="each says where objects are")
        told = next((name for name in ("masks", "boxes") if getattr(request, name) is not None), None)
        check_steps(
            [Step(model.name, task.output.truth, task.output.per) for model, task in zip(models, tasks, strict=True)],
            told=told,
        )
        for (bundle, _), task in zip(loaded, tasks, strict=True):
            require_each(bundle.spec, task.output.per, request.each)
        kind = tasks[-1].output.truth
        if request.format != ZARR:
            form_named(request.format, kind)
        elif kind not in ("labels", "image"):
            raise RequestError(
                f"expected a format for answers of the kind {kind!r}, got zarr", field="format", hint="leave it out"
            )
        return self._store.create(
            Job(
                id=new_id(),
                steps=tuple(_lasting(reference) for reference in steps),
                models=tuple(models),
                request=request,
                owner=owner,
                created=now(),
                allowed=self._allowed,
                options=self._options,
                movies=is_movie(loaded[-1][0].spec.input),
                spatial_axes=loaded[-1][0].spec.input.spatial_axes,
                workers=min(request.workers or self._workers, self._workers),
                cpus_per_worker=self._cpus_per_worker,
                gpus_per_worker=self._gpus_per_worker,
            )
        )

    def _watch(self) -> None:
        while not self._closed.wait(_LOOK_SECONDS):
            try:
                self._look()
            except Exception:
                log.exception("jobs cannot be looked after; this is tried again")

    def _look(self) -> None:
        """Start drivers for jobs that have none, the oldest first."""
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
                        driven.process.kill()  # its cluster is gone, which it would notice in a minute
                    continue
                driven.process = None
                self._note_end(folder, driven, status)
            state = self._store.readable_state(folder)
            if isinstance(state, PlatformError):
                continue  # a damaged job keeps no other from being done
            if state.has_ended and self._is_free(folder):
                self._ended.add(name)
                self._driven.pop(name, None)
            else:
                waiting.append((state.created, folder))
        running = sum(driven.process is not None for driven in self._driven.values())
        waiting.sort(key=lambda one: one[0])
        for _, folder in waiting[: max(0, self._at_once - running)]:
            self._drive(folder)

    def _drive(self, folder: JobFolder) -> None:
        driven = self._driven.setdefault(folder.path.name, _Driven())
        if time.monotonic() < driven.not_before or not self._is_free(folder):
            return  # not yet, or the driver of a service that is gone still works on it
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
        """Count the starts of a driver that ended before its job did, and give up when they lead nowhere."""
        state = self._store.readable_state(folder)
        if status == BUSY or isinstance(state, PlatformError) or state.has_ended:
            return
        try:
            finished = len(folder.records())
        except PlatformError as fault:  # the driver cannot read them either, and gets no further
            log.warning("%s", fault)
            finished = driven.finished
        driven.starts = 1 if finished > driven.finished else driven.starts + 1
        driven.finished = finished
        driven.not_before = time.monotonic() + min(2.0 ** (driven.starts - 1), 30.0) - 1.0
        log.warning("the driver of %s ended with %d; start %d", folder.path.name, status, driven.starts)
        if driven.starts < _STARTS:
            return
        lines = [line for line in folder.log_text().splitlines() if line.strip()][-_TOLD_LINES:]
        error = ErrorBody(
            error="PlatformError",
            message=f"the job's process ended {driven.starts} times and got no further: {' / '.join(lines)}"[:2000],
            hint="the job's log says more",
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


def _lasting(reference: str) -> str:
    """Return a reference that means the same to processes that run elsewhere: of a folder its absolute path."""
    return str(Path(reference).absolute()) if Path(reference).is_dir() else reference
