"""Looks at all jobs again and again: for the metrics, and to know whether the cluster answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable

from prometheus_client import CollectorRegistry

from cytoray_analysis.errors import CytorayError, PlatformError
from cytoray_services.jobs.job import Job
from cytoray_services.jobs.place import Place
from cytoray_services.telemetry import JobWatch, SeenJob, job_metrics

log = logging.getLogger(__name__)


class Watch:
    """One look after the other.

    Parameters
    ----------
    seconds
        Between two.
    """

    def __init__(self, place: Place, registry: CollectorRegistry, seconds: float) -> None:
        self._place = place
        self._seconds = seconds
        self._metrics = JobWatch(job_metrics(registry), "training")
        self._failed: CytorayError | None = PlatformError("the service has not looked at the cluster yet")

    async def run(self) -> None:
        """Look for as long as the service runs."""
        while True:
            await self.look()
            await asyncio.sleep(self._seconds)

    async def look(self) -> None:
        """Look once."""
        try:
            self._metrics.look(await asyncio.to_thread(self._seen))
            self._failed = None
        except CytorayError as error:
            log.warning("the cluster does not answer: %s", error.message)
            self._failed = error
        except Exception as error:
            log.exception("looking at the jobs failed; it is tried again")
            self._failed = PlatformError(f"looking at the jobs failed: {type(error).__name__}")

    def require_answer(self) -> None:
        """Make sure that the last look told something.

        Raises
        ------
        PlatformError
            It did not.
        """
        if self._failed is not None:
            raise PlatformError(self._failed.message, hint=self._failed.hint)

    def _seen(self) -> list[SeenJob]:
        return [SeenJob(job.id, job.state, self._progress(job)) for job in self._place.list()]

    def _progress(self, job: Job) -> Hashable:
        """Return what is another whenever a running job has moved forward: how much it has said."""
        if job.state != "running":
            return None
        try:
            return sum(len(piece) for piece in self._place.logs(job.id))
        except CytorayError as error:  # it has just ended, or its node is going
            log.info("the log of %s cannot be read: %s", job.id, error.message)
            return None
