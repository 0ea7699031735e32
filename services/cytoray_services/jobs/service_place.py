"""The jobs service as a place: asked over HTTP, with a token, by those who have no rights on the cluster."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx

from cytoray_analysis.errors import CytorayError, PlatformError, RequestError
from cytoray_services.http_errors import error_of_response
from cytoray_services.jobs.job import Job
from cytoray_services.jobs.submission import Submission

TOKEN = "CYTORAY_TOKEN"  # noqa: S105 - the name of a variable
_SECONDS = 120.0
_AGAIN_SECONDS = 2.0


class ServicePlace:
    """Jobs behind a jobs service, which gives each its id and its owner.

    Parameters
    ----------
    url
        Address of the service.
    token
        What the service knows the caller by; that of the variable ``CYTORAY_TOKEN`` by default, if there is one.
    transport
        How it is reached; over the network by default.
    """

    def __init__(self, url: str, *, token: str | None = None, transport: httpx.BaseTransport | None = None) -> None:
        self._url = url.rstrip("/")
        token = token or os.environ.get(TOKEN)
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        timeout = httpx.Timeout(_SECONDS, connect=10.0)
        try:
            self._http = httpx.Client(base_url=self._url, timeout=timeout, headers=headers, transport=transport)
        except UnicodeEncodeError as error:
            raise RequestError("expected a token of plain letters and digits", field=TOKEN) from error
        except httpx.InvalidURL as error:
            raise RequestError(f"{url} is no address: {error}", field="--on") from error

    def manifest(self, submission: Submission, *, owner: str, team: str | None = None) -> str:
        """Return what the service would send to its cluster, as YAML."""
        return str(self._ask("POST", "/jobs/check", json=_body(submission, team))["manifest"])

    def submit(self, submission: Submission, *, owner: str, team: str | None = None) -> Job:
        """Start a job; the owner is who has the token."""
        return Job.model_validate(self._ask("POST", "/jobs", json=_body(submission, team)))

    def list(self) -> list[Job]:
        """Return the jobs of the token's team, the newest first."""
        return [Job.model_validate(one) for one in self._ask("GET", "/jobs")["jobs"]]

    def show(self, job_id: str) -> Job:
        """Return where a job stands."""
        return Job.model_validate(self._ask("GET", _path(job_id)))

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[str]:
        """Yield what the job has printed; a stream that breaks off while it is followed is taken up again."""
        seen = 0
        while True:
            at = 0
            try:
                for piece in self._stream(job_id, follow):
                    if at + len(piece) > seen:
                        yield piece[max(0, seen - at) :]
                    at += len(piece)
                    seen = max(seen, at)
                return
            except _BrokenOffError:
                if not follow:
                    raise
            time.sleep(_AGAIN_SECONDS)
            self.show(job_id)  # says what is wrong where the service has gone for good

    def stop(self, job_id: str) -> Job:
        """Cancel a job; one that has ended stays as it is."""
        return Job.model_validate(self._ask("DELETE", _path(job_id)))

    def _stream(self, job_id: str, follow: bool) -> Iterator[str]:
        timeout = httpx.Timeout(None if follow else _SECONDS, connect=10.0)
        path = f"{_path(job_id)}/log" + ("?follow=true" if follow else "")
        with self._told(), self._http.stream("GET", path, timeout=timeout) as response:
            if response.status_code != httpx.codes.OK:
                raise _refusal(response.status_code, response.read())
            try:
                yield from response.iter_text()
            except httpx.HTTPError as error:
                raise _BrokenOffError(f"the log of {job_id} broke off: {error}", hint="ask again") from error

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        with self._told():
            response = self._http.request(method, path, **options)
        if not response.is_success:
            raise _refusal(response.status_code, response.content)
        try:
            return response.json()
        except json.JSONDecodeError as error:
            raise PlatformError(
                f"{self._url} is no jobs service of Cytoray", field="--on", hint="is this its address?"
            ) from error

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what goes wrong on the way into one of our errors."""
        try:
            yield
        except httpx.InvalidURL as error:
            raise RequestError(f"{self._url} is no address: {error}", field="--on") from error
        except httpx.TimeoutException as error:
            raise PlatformError(
                f"the jobs service at {self._url} did not answer in time", field="--on", hint="ask again later"
            ) from error
        except httpx.HTTPError as error:
            raise PlatformError(
                f"no jobs service answers at {self._url}: {error}",
                field="--on",
                hint="is this its address, and does it run? cytoray jobs serve --config FILE",
            ) from error


class _BrokenOffError(PlatformError):
    """A stream that ended too soon."""


def _refusal(status: int, body: bytes) -> CytorayError:
    error = error_of_response(status, body)
    if error.field != "Authorization":
        return error
    return type(error)(error.message, field=TOKEN, hint=f"set {TOKEN} to a token that the service knows")


def _body(submission: Submission, team: str | None) -> dict[str, Any]:
    body = {"recipe": submission.recipe, "command": submission.command}
    return body if team is None else body | {"team": team}


def _path(job_id: str) -> str:
    return f"/jobs/{quote(job_id, safe='')}"
