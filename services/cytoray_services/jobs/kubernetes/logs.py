"""What a job has printed: the output of the container that submits it and follows its driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cytoray_analysis.errors import MissingFileError, PlatformError
from cytoray_services.jobs.job import Job
from cytoray_services.jobs.kubernetes.connection import Cluster
from cytoray_services.jobs.kubernetes.errors import RefusedError
from cytoray_services.jobs.kubernetes.manifest import JOB_LABEL, RAY_GROUP

_SUBMITTER = "ray-job-submitter"
_LOOK_SECONDS = 10.0  # at most so long until a change is seen that the watch does not tell of
_SILENT_SECONDS = 300.0  # after which a connection may be dead: it is asked anew

Look = Callable[[], tuple[Job, Mapping[str, Any]]]


def read(cluster: Cluster, look: Look, *, follow: bool, say: Callable[[str], None]) -> Iterator[str]:
    """Yield the lines that a job has printed; with `follow` until it has ended.

    Parameters
    ----------
    cluster
        Where the job is.
    look
        Returns where the job stands, and its RayJob.
    follow
        Whether to wait for more, and for the first line.
    say
        Told why the job waits.

    Raises
    ------
    PlatformError
        It has printed nothing yet, or not here.
    MissingFileError
        Its pods are gone.
    """
    reader = _Reader(cluster)
    told: str | None = None
    while True:
        job, rayjob = look()
        mode = rayjob["spec"].get("submissionMode")
        if mode == "HTTPMode":
            raise PlatformError(
                f"what {job.id} prints is in Ray's dashboard only, since the platform submits in HTTPMode",
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
                f"what {job.id} has printed is gone: its pods were removed",
                hint="its run in MLflow keeps its course and its files",
            )
        elif not follow:
            raise PlatformError(f"{job.id} has printed nothing yet: {job.reason or 'it starts'}", hint=job.hint)
        elif job.reason and job.reason != told:
            told = job.reason
            say(f"{job.id} waits: {told}" + (f"\n hint: {job.hint}" if job.hint else ""))
        if not follow or job.has_ended:
            return
        if reader.has_read:  # what is awaited now is the job's end
            path, version = cluster.path(RAY_GROUP, "rayjobs"), rayjob["metadata"].get("resourceVersion") or ""
            selector = {"fieldSelector": f"metadata.name={job.id}"}
        else:
            selector = {"labelSelector": f"{JOB_LABEL}={job.id}"}
        cluster.wait_for_change(path, version, seconds=_LOOK_SECONDS, **selector)


class _Reader:
    """Reads a container's log on from where it stopped, whatever connections do."""

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
            # Between two looks the pod may have gone, or its container may not have begun.
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
