"""Polls all jobs, for the metrics and for the readiness of the cluster."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable

from prometheus_client import CollectorRegistry

from cytoray_analysis.errors import CytorayError, PlatformError
from cytoray_services.jobs.backend import JobBackend
from cytoray_services.jobs.job import Job, Progress
from cytoray_services.jobs.progress import training_progress
from cytoray_services.telemetry import JobWatch, SeenJob, job_metrics

log = logging.getLogger(__name__)


class Watch:
    """Polls the jobs at an interval.

    Parameters
    ----------
    seconds
        Interval.
    """

    def __init__(self, backend: JobBackend, registry: CollectorRegistry, seconds: float) -> None:
        self._backend = backend
        self._seconds = seconds
        self._metrics = JobWatch(job_metrics(registry), "training")
        self._progress: dict[str, Progress] = {}
        self._failed: CytorayError | None = PlatformError("the service has not polled the cluster yet")

    async def run(self) -> None:
        """Poll while the service runs."""
        while True:
            await self.look()
            await asyncio.sleep(self._seconds)

    async def look(self) -> None:
        """Poll once."""
        try:
            self._metrics.look(await asyncio.to_thread(self._seen))
            self._failed = None
        except CytorayError as error:
            log.warning("the cluster does not answer: %s", error.message)
            self._failed = error
        except Exception as error:
            log.exception("polling the jobs failed, trying again")
            self._failed = PlatformError(f"polling the jobs failed: {type(error).__name__}")

    def require_answer(self) -> None:
        """Raise unless the last poll succeeded.

        Raises
        ------
        PlatformError
            It failed.
        """
        if self._failed is not None:
            raise PlatformError(self._failed.message, hint=self._failed.hint)

    def with_progress(self, job: Job) -> Job:
        """Return a job with its progress at the last poll."""
        return job.model_copy(update={"progress": job.progress or self._progress.get(job.id)})

    def _seen(self) -> list[SeenJob]:
        jobs = self._backend.list()
        self._progress = {job.id: self._progress[job.id] for job in jobs if job.id in self._progress}
        return [SeenJob(job.id, job.state, self._moved(job)) for job in jobs]

    def _moved(self, job: Job) -> Hashable:
        """Return a value that changes whenever a running job progresses: the length of its log."""
        if job.state != "running":
            return None
        try:
            printed = "".join(self._backend.logs(job.id))
            if progress := training_progress([printed]):
                self._progress[job.id] = progress
            return len(printed)
        except CytorayError as error:  # it has just ended, or its node is being removed
            log.info("the log of %s cannot be read: %s", job.id, error.message)
            return None
