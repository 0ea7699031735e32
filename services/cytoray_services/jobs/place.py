"""Where jobs run: here, on a Ray cluster, on Kubernetes, or behind the jobs service; asked with the same words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from cytoray_analysis.errors import RequestError
from cytoray_services.jobs.job import Job
from cytoray_services.jobs.submission import Submission
from cytoray_services.settings import Settings

HINT = (
    "use local, ray://HOST:PORT, http://HOST:8265, kubernetes, kubernetes:CONTEXT, kubernetes:CONTEXT/NAMESPACE or "
    "service:URL"
)


class Place(Protocol):
    """Where jobs run. What it says of them comes from the cluster, never from a file of ours.

    All raise PlatformError where the place does not answer, ForbiddenError where it does not allow what is asked, and
    JobNotFoundError where there is no such job.
    """

    def manifest(self, submission: Submission, *, owner: str, team: str | None = None) -> str:
        """Return what submitting would send, as YAML, without sending anything."""
        ...

    def submit(self, submission: Submission, *, owner: str, team: str | None = None) -> Job:
        """Start a job, after a look at whether the place can ever run it."""
        ...

    def list(self) -> list[Job]:
        """Return all jobs of Cytoray that the place knows, the newest first."""
        ...

    def show(self, job_id: str) -> Job:
        """Return where a job stands."""
        ...

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[str]:
        """Yield what the job has printed, in pieces; with `follow` until it has ended."""
        ...

    def stop(self, job_id: str) -> Job:
        """Cancel a job; one that has ended stays as it is."""
        ...


def open_place(on: str, settings: Settings, *, code: bool = False) -> Place:
    """Find a place by its name.

    Parameters
    ----------
    on
        ``local``, ``ray://HOST:PORT``, ``http(s)://HOST:8265`` (Ray's job API), ``kubernetes[:CONTEXT[/NAMESPACE]]`` or
        ``service:URL`` (Cytoray's jobs service).
    code
        Whether the packages of this installation travel with each job and count before those of the cluster.

    Raises
    ------
    RequestError
        It names no place.
    PlatformError
        What is needed to reach it is not installed, or it does not answer.
    """
    kind, _, rest = on.partition(":")
    if on == "local" or kind in ("ray", "http", "https"):
        from cytoray_services.jobs.ray_place import open_ray

        return open_ray(on, settings, code=code)
    if kind == "kubernetes":
        from cytoray_services.jobs.kubernetes.place import open_kubernetes

        return open_kubernetes(rest, code=code)
    if kind == "service" and rest.startswith(("http://", "https://")):
        from cytoray_services.jobs.service_place import ServicePlace

        if code:
            raise RequestError("the jobs service runs its own code", field="--code", hint="leave --code out")
        return ServicePlace(rest)
    raise RequestError(f"expected a place where jobs run, got {on!r}", field="--on", hint=HINT)
