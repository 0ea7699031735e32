"""Jobs of a jobs service, over HTTP with a token, for users without rights on the cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from cytoray_analysis.errors import PlatformError
from cytoray_services.http.client import ServiceConnection
from cytoray_services.jobs.backend import JobBackend
from cytoray_services.jobs.job import Job
from cytoray_services.jobs.submission import AnySubmission, Submission, recipe_of

_SECONDS = 120.0
_AGAIN_SECONDS = 2.0


class ServiceBackend(JobBackend):
    """Jobs of a jobs service, which assigns their ID and owner.

    Parameters
    ----------
    url
        Address of the service.
    token
        Token for the service; by default the value of ``CYTORAY_TOKEN``, if it is set.
    """

    def __init__(self, url: str, *, token: str | None = None) -> None:
        self.service = ServiceConnection(url, timeout=_SECONDS, token=token, field="--on")

    def manifest(self, submission: Submission, *, owner: str, team: str | None = None) -> str:
        """Return the YAML that the service would submit to its cluster."""
        return str(self.service.json("POST", "/jobs/check", json=_body(submission, team)).get("manifest"))

    def submit(self, submission: AnySubmission, *, owner: str, team: str | None = None) -> Job:
        """Start a job; its owner is the name of the token."""
        return self.job_of(self.service.json("POST", "/jobs", json=_body(recipe_of(submission), team)))

    def list(self) -> list[Job]:
        """Return the jobs that the token may see, newest first."""
        return [self.job_of(one) for one in self.service.json("GET", "/jobs").get("jobs", ())]

    def show(self, job_id: str) -> Job:
        """Return the status of a job."""
        return self.job_of(self.service.json("GET", _path(job_id)))

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[str]:
        """Yield the log of the job; with `follow`, a broken stream is resumed."""
        known = 0
        while True:
            at = 0
            try:
                for piece in self._stream(job_id, follow):
                    if at + len(piece) > known:
                        yield piece[max(0, known - at) :]
                    at += len(piece)
                    known = max(known, at)
                return
            except _BrokenOffError:
                if not follow:
                    raise
            time.sleep(_AGAIN_SECONDS)
            self.show(job_id)  # raises the error if the service is unavailable

    def stop(self, job_id: str) -> Job:
        """Cancel a job; a job that has ended is unchanged."""
        return self.job_of(self.service.json("DELETE", _path(job_id)))

    def job_of(self, described: dict[str, Any]) -> Job:
        """Parse the service's description of a job."""
        try:
            return Job.model_validate(described)
        except ValidationError as error:
            raise self.service.foreign("/jobs") from error

    def _stream(self, job_id: str, follow: bool) -> Iterator[str]:
        path = f"{_path(job_id)}/log" + ("?follow=true" if follow else "")
        with self.service.stream(path, seconds=None if follow else _SECONDS) as response:
            try:
                yield from response.iter_text()
            except httpx.HTTPError as error:
                raise _BrokenOffError(f"the log of {job_id} broke off: {error}", hint="try again") from error


class _BrokenOffError(PlatformError):
    """A stream that ended too soon."""


def _body(submission: Submission, team: str | None) -> dict[str, Any]:
    body = {"recipe": submission.recipe, "command": submission.command}
    return body if team is None else body | {"team": team}


def _path(job_id: str) -> str:
    return f"/jobs/{quote(job_id, safe='')}"
