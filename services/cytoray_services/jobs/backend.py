"""The interface of all backends: this machine, a Ray cluster, Kubernetes, or a service."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

from cytoray_services.jobs.job import Job
from cytoray_services.jobs.submission import AnySubmission, Submission

_POLL_SECONDS = 1.0


class JobBackend(Protocol):
    """Where jobs run. Their state comes from the cluster, never from our own files.

    All methods raise PlatformError if the backend does not answer, ForbiddenError if the request is not allowed, and
    JobNotFoundError if there is no such job.
    """

    def manifest(self, submission: Submission, *, owner: str, team: str | None = None) -> str:
        """Return the YAML that would be submitted, without submitting it."""
        ...

    def submit(self, submission: AnySubmission, *, owner: str, team: str | None = None) -> Job:
        """Start a job, after a check that the backend can ever run it."""
        ...

    def list(self) -> list[Job]:
        """Return all jobs of Cytoray in the backend, newest first."""
        ...

    def show(self, job_id: str) -> Job:
        """Return the status of a job."""
        ...

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[str]:
        """Yield the log of the job in pieces; with `follow` until it has ended.

        With `follow`, an empty piece comes at least every half minute without output, so that a reader can stop.
        """
        ...

    def stop(self, job_id: str) -> Job:
        """Cancel a job; a job that has ended is unchanged."""
        ...

    def follow(self, job_id: str) -> Iterator[Job]:
        """Yield the status of a job, now and after each change of state or progress, until it has ended."""
        last: Job | None = None
        while last is None or not last.has_ended:
            if last is not None:
                time.sleep(_POLL_SECONDS)
            job = self.show(job_id)
            if last is None or (job.state, job.progress) != (last.state, last.progress):
                yield job
            last = job
