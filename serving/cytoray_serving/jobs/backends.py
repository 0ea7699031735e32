"""Backends for training runs and bulk predictions: a service, this machine, and several backends together."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from cytoray_analysis.errors import CytorayError, JobNotFoundError, PlatformError
from cytoray_services.jobs.backend import JobBackend
from cytoray_services.jobs.job import Job
from cytoray_services.jobs.opening import open_backend
from cytoray_services.jobs.service_backend import ServiceBackend
from cytoray_services.jobs.submission import AnySubmission, BulkSubmission, Submission
from cytoray_services.settings import Settings
from cytoray_serving.client import Client
from cytoray_serving.jobs.bulk import BulkJob, bulk_job, damaged_job
from cytoray_serving.jobs.request import DamagedJob, JobStatus
from cytoray_serving.jobs.store import JobFolder, JobStore

_POLL_SECONDS = 1.0
_KNOWN = 200  # characters at the end of a log, used to find what follows


def open_jobs(on: str | None, url: str, settings: Settings, *, named: bool = False, code: bool = False) -> JobBackend:
    """Open the backend where jobs run.

    Parameters
    ----------
    on
        The value of ``--on``, several with commas between them: recipes go to the first, images to the last. None for
        this machine, with its service if it answers.
    url
        Address of the service on this machine.
    named
        Whether the user gave it, so that it must answer.
    code
        See :func:`cytoray_services.jobs.opening.open_backend`.

    Raises
    ------
    RequestError
        It names no backend.
    """
    if on is None:
        return Several([LocalBackend(settings, code=code), GatewayBackend(url)], optional=0 if named else 1)
    backends = [_open(one.strip(), settings, code=code) for one in on.split(",")]
    return backends[0] if len(backends) == 1 else Several(backends)


def _open(on: str, settings: Settings, *, code: bool) -> JobBackend:
    if on == "local":
        return LocalBackend(settings, code=code)
    if on.startswith(("service:http://", "service:https://")) and not code:
        return GatewayBackend(on.removeprefix("service:"))
    return open_backend(on, settings, code=code)


class GatewayBackend(ServiceBackend):
    """Jobs of a service: bulk predictions of a service of models, or recipes of a jobs service.

    Parameters
    ----------
    url
        Address of the service.
    """

    def __init__(self, url: str) -> None:
        self._client = Client(url)
        self.service = self._client.service
        self._place = f"service:{self.service.url}"

    def submit(self, submission: AnySubmission, *, owner: str, team: str | None = None) -> Job:
        """Start a job; its owner is the name of the token."""
        if not isinstance(submission, BulkSubmission):
            return super().submit(submission, owner=owner, team=team)
        request = dict(submission.request)
        status = self._client.submit_job(
            submission.model,
            str(request.pop("input")),
            str(request.pop("output")),
            version=submission.version,
            team=team,
            **request,
        )
        return bulk_job(status, self._place)

    def list(self) -> list[Job]:
        """Return the jobs that the token may see, newest first, and the damaged ones."""
        found = self.service.json("GET", "/jobs")
        damaged = [DamagedJob.model_validate(one) for one in found.get("damaged", ())]
        return [damaged_job(one, self._place) for one in damaged] + [self.job_of(one) for one in found["jobs"]]

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[str]:
        """Yield the log of the job; with `follow` until it has ended."""
        if not isinstance(self.show(job_id), BulkJob):
            yield from super().logs(job_id, follow=follow)
            return
        yield from _tail(lambda: self._client.job_log(job_id), lambda: not follow or self.show(job_id).has_ended)

    def follow(self, job_id: str) -> Iterator[Job]:
        """Yield the status of a job after each change until it has ended, also across restarts of its service."""
        if not isinstance(self.show(job_id), BulkJob):
            yield from super().follow(job_id)
            return
        for status in self._client.follow_job(job_id):
            yield bulk_job(status, self._place)

    def job_of(self, described: dict[str, Any]) -> Job:
        """Parse the service's description of a job."""
        if "models" not in described:
            return super().job_of(described)
        try:
            return bulk_job(JobStatus.model_validate(described), self._place)
        except ValidationError as error:
            raise self.service.foreign("/jobs") from error


class LocalBackend(JobBackend):
    """Jobs of this machine: recipes on its local Ray cluster, and the folders of its service, running or not.

    Parameters
    ----------
    settings
        Location of the state folder.
    """

    def __init__(self, settings: Settings, *, code: bool = False) -> None:
        self._ray = open_backend("local", settings, code=code)
        self._store = JobStore(settings.home / "jobs")

    def manifest(self, submission: Submission, *, owner: str, team: str | None = None) -> str:
        """Return the YAML that would be submitted."""
        return self._ray.manifest(submission, owner=owner, team=team)

    def submit(self, submission: AnySubmission, *, owner: str, team: str | None = None) -> Job:
        """Start a job with a recipe."""
        return self._ray.submit(submission, owner=owner, team=team)

    def list(self) -> list[Job]:
        """Return all jobs, newest first."""
        found = self._store.states()
        bulk = [bulk_job(status, "local") for status in found.jobs]
        return [damaged_job(one, "local") for one in found.damaged] + _newest_first([*self._ray.list(), *bulk])

    def show(self, job_id: str) -> Job:
        """Return the status of a job."""
        folder = self._folder(job_id)
        return self._ray.show(job_id) if folder is None else bulk_job(folder.state(), "local")

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[str]:
        """Yield the log of the job; with `follow` until it has ended."""
        folder = self._folder(job_id)
        if folder is None:
            return self._ray.logs(job_id, follow=follow)
        return _tail(folder.log_text, lambda: not follow or folder.state().has_ended)

    def stop(self, job_id: str) -> Job:
        """Cancel a job; a job that has ended is unchanged."""
        folder = self._folder(job_id)
        return self._ray.stop(job_id) if folder is None else bulk_job(folder.stop(), "local")

    def _folder(self, job_id: str) -> JobFolder | None:
        with suppress(JobNotFoundError):
            return self._store.find(job_id)
        return None


class Several(JobBackend):
    """The jobs of several backends.

    Parameters
    ----------
    backends
        Recipes go to the first, images to the last; a job in several backends is the one of the first.
    optional
        Number of the last backends that need not answer.
    """

    def __init__(self, backends: Sequence[JobBackend], *, optional: int = 0) -> None:
        self._backends = backends
        self._needed = len(backends) - optional

    def manifest(self, submission: Submission, *, owner: str, team: str | None = None) -> str:
        """Return the YAML that would be submitted."""
        return self._backends[0].manifest(submission, owner=owner, team=team)

    def submit(self, submission: AnySubmission, *, owner: str, team: str | None = None) -> Job:
        """Start a job."""
        chosen = self._backends[-1 if isinstance(submission, BulkSubmission) else 0]
        return chosen.submit(submission, owner=owner, team=team)

    def list(self) -> list[Job]:
        """Return all jobs, newest first; print optional backends that do not answer on standard error."""
        found: dict[str, Job] = {}
        for number, backend in enumerate(self._backends):
            try:
                found = {job.id: job for job in backend.list()} | found
            except CytorayError as error:
                if number < self._needed:
                    raise
                print(f"not listed: {error.message}", file=sys.stderr)
        return _newest_first(found.values())

    def show(self, job_id: str) -> Job:
        """Return the status of a job."""
        return self._holder(job_id).show(job_id)

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[str]:
        """Yield the log of the job."""
        return self._holder(job_id).logs(job_id, follow=follow)

    def stop(self, job_id: str) -> Job:
        """Cancel a job."""
        return self._holder(job_id).stop(job_id)

    def follow(self, job_id: str) -> Iterator[Job]:
        """Yield the status of a job after each change until it has ended."""
        return self._holder(job_id).follow(job_id)

    def _holder(self, job_id: str) -> JobBackend:
        """Return the first backend with this job; if there is none, raise the error of the first."""
        errors: list[CytorayError] = []
        for number, backend in enumerate(self._backends):
            try:
                backend.show(job_id)
            except JobNotFoundError as error:
                errors.append(error)
            except PlatformError:
                if number < self._needed:
                    raise
            else:
                return backend
        raise errors[0]


def _newest_first(jobs: Any) -> list[Job]:
    return sorted(jobs, key=lambda job: (job.created or datetime.min.replace(tzinfo=UTC), job.id), reverse=True)


def _tail(read: Callable[[], str], ended: Callable[[], bool]) -> Iterator[str]:
    """Yield the readable end of a log, and what is added to it until the job has ended."""
    text = ""
    while True:
        last = ended()  # before the log is read, so that the log is complete
        before, text = text, read()
        known = text.rfind(before[-_KNOWN:]) if before else -1
        yield text[known + len(before[-_KNOWN:]) :] if known >= 0 else text
        if last:
            return
        time.sleep(_POLL_SECONDS)
