"""The log of a job: the output of the container that submits it and follows its driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cytoray_analysis.errors import MissingFileError, PlatformError
from cytoray_services.jobs.job import Job
from cytoray_services.jobs.kubernetes.connection import Cluster
from cytoray_services.jobs.kubernetes.errors import RefusedError
from cytoray_services.jobs.kubernetes.manifest import JOB_LABEL, RAY_GROUP

_SUBMITTER = "ray-job-submitter"
_LOOK_SECONDS = 10.0  # maximum delay of a change that the watch misses
_SILENT_SECONDS = 30.0  # then a connection may be dead, or the reader may have stopped: it is opened again

Look = Callable[[], tuple[Job, Mapping[str, Any]]]


def read(cluster: Cluster, look: Look, *, follow: bool, say: Callable[[str], None]) -> Iterator[str]:
    """Yield the lines of the log of a job; with `follow` until it has ended, with empty lines while there is no output.

    Parameters
    ----------
    cluster
        Cluster of the job.
    look
        Returns the status of the job, and its RayJob.
    follow
        Whether to wait for more, and for the first line.
    say
        Called with the reason why the job waits.

    Raises
    ------
    PlatformError
        There is no output yet, or it is not here.
    MissingFileError
        Its pods were removed.
    """
    reader = _Reader(cluster)
    shown: str | None = None
    while True:
        job, rayjob = look()
        mode = rayjob["spec"].get("submissionMode")
        if mode == "HTTPMode":
            raise PlatformError(
                f"the log of {job.id} is only in Ray's dashboard, because the platform submits in HTTPMode",
                hint=job.dashboard or "set the platform's submitter to K8sJobMode",
            )
        path = cluster.path("v1", "pods")
        pods, version = cluster.list(path, labelSelector=f"{JOB_LABEL}={job.id}")
        pod = _printing(pods, rayjob)
        if pod is not None and _has_started(pod):
            yield from reader.lines(pod, follow=follow and not job.has_ended)
        elif job.has_ended:
            if reader.has_read:
                return
            raise MissingFileError(
                f"the log of {job.id} no longer exists: its pods were removed",
                hint="its run in MLflow has its metrics and its files",
            )
        elif not follow:
            raise PlatformError(f"{job.id} has no output yet: {job.reason or 'it is starting'}", hint=job.hint)
        elif job.reason and job.reason != shown:
            shown = job.reason
            say(f"{job.id} waits: {shown}" + (f"\n hint: {job.hint}" if job.hint else ""))
        if not follow or job.has_ended:
            return
        if reader.has_read:  # now only the end of the job is missing
            path, version = cluster.path(RAY_GROUP, "rayjobs"), rayjob["metadata"].get("resourceVersion") or ""
            selector = {"fieldSelector": f"metadata.name={job.id}"}
        else:
            selector = {"labelSelector": f"{JOB_LABEL}={job.id}"}
        yield ""
        cluster.wait_for_change(path, version, seconds=_LOOK_SECONDS, **selector)


class _Reader:
    """Reads the log of a container, and continues after lost connections."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._pod = ""
        self._last = ""
        self.has_read = False

    def lines(self, pod: Mapping[str, Any], *, follow: bool) -> Iterator[str]:
        name = pod["metadata"]["name"]
        if name != self._pod:  # a new submitter follows the same job from its first line
            self._pod, self._last = name, ""
        query = {"container": _container(pod), "timestamps": "true"} | ({"follow": "true"} if follow else {})
        if self._last:
            query["sinceTime"] = self._last
        try:
            path = self._cluster.path("v1", "pods", name, part="log")
            for line in self._cluster.lines(path, seconds=_SILENT_SECONDS, **query):
                moment, _, text = line.partition(" ")
                if moment <= self._last:  # sinceTime counts whole seconds
                    continue
                self._last, self.has_read = moment, True
                yield text + "\n"
        except RefusedError as refused:
            # In the meantime the pod may have been removed, or its container may not have started.
            if refused.code not in (400, 404):
                raise


def _printing(pods: list[dict[str, Any]], rayjob: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the newest pod whose output is the driver's."""
    if rayjob["spec"].get("submissionMode") == "SidecarMode":
        own = [pod for pod in pods if pod["metadata"]["labels"].get("ray.io/node-type") == "head"]
    else:
        own = [pod for pod in pods if "job-name" in pod["metadata"]["labels"]]
    return max(own, key=lambda pod: str(pod["metadata"].get("creationTimestamp") or ""), default=None)


def _container(pod: Mapping[str, Any]) -> str:
    names = [one["name"] for one in pod["spec"]["containers"]]
    return _SUBMITTER if _SUBMITTER in names else str(names[0])


def _has_started(pod: Mapping[str, Any]) -> bool:
    name = _container(pod)
    statuses = [one for one in (pod.get("status") or {}).get("containerStatuses") or [] if one["name"] == name]
    state = (statuses[0].get("state") or {}) if statuses else {}
    return "running" in state or "terminated" in state
