"""The description of a job from its RayJob, and from pods and events if the RayJob gives no reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from cytoray_services.jobs.job import Command, Job, State
from cytoray_services.jobs.kubernetes.manifest import COMMAND, JOB_LABEL, NAME, OWNER, QUEUE_LABEL, SCALE, TEAM_LABEL
from cytoray_services.jobs.kubernetes.reasons import Reason, of_failure, of_waiting
from cytoray_services.jobs.scale import Scale

CANCELLED = "cytoray.io/cancelled"
_ENDED = ("Complete", "Failed", "ValidationFailed")
_ENDS: Mapping[str, State] = {"SUCCEEDED": "done", "STOPPED": "cancelled"}


def state_of(rayjob: Mapping[str, Any]) -> State:
    """Return the state of a job."""
    status = rayjob.get("status") or {}
    deployment, job = status.get("jobDeploymentStatus") or "", status.get("jobStatus") or ""
    if deployment in _ENDED:
        # A failure after the success of the job, such as at the end of its cluster, does not change its results.
        return _ENDS.get(job, "failed") if deployment == "Complete" or job == "SUCCEEDED" else "failed"
    if CANCELLED in _annotations(rayjob):
        return "cancelled"
    # RUNNING means that Ray has started the job; later states are final when the deployment has ended.
    return "running" if deployment == "Running" and job not in ("", "PENDING") else "queued"


def describe(
    rayjob: Mapping[str, Any],
    *,
    place: str,
    pods: Sequence[Mapping[str, Any]] = (),
    events: Sequence[Mapping[str, Any]] = (),
    workload: Mapping[str, Any] | None = None,
) -> Job:
    """Describe a job.

    Parameters
    ----------
    rayjob
        Object from the API server.
    place
        The backend, in the form of ``--on``.
    pods, events
        Of all jobs or of this one; those of other jobs are ignored.
    workload
        Kueue's workload of the job.
    """
    metadata, status = rayjob["metadata"], rayjob.get("status") or {}
    annotations, labels = _annotations(rayjob), metadata.get("labels") or {}
    state = state_of(rayjob)
    scale = _scale(annotations)
    own = [pod for pod in pods if _label(pod, JOB_LABEL) == metadata["name"]]
    info = status.get("rayJobInfo") or {}
    created, started = _time(metadata.get("creationTimestamp")), _time(info.get("startTime"))
    ended = None
    if state == "cancelled":
        ended = _time(annotations.get(CANCELLED)) or _time(status.get("endTime"))
    elif state in ("done", "failed"):
        ended = _time(info.get("endTime")) or _time(status.get("endTime"))
    reason: Reason | None = None
    if state == "queued":
        reason = of_waiting(rayjob, own, _events_of(rayjob, own, events), workload)
    elif state == "failed":
        reason = of_failure(status, own)
    command: Command = "tune" if annotations.get(COMMAND) == "tune" else "train"
    return Job(
        id=metadata["name"],
        command=command,
        name=annotations.get(NAME) or metadata["name"],
        state=state,
        place=place,
        owner=annotations.get(OWNER, ""),
        team=labels.get(TEAM_LABEL),
        scale=scale,
        workers=_workers(status, own, scale) if state == "running" else None,
        reason=reason.text if reason else None,
        hint=reason.hint if reason else None,
        dashboard=f"http://{status['dashboardURL']}" if status.get("dashboardURL") and state == "running" else None,
        created=created,
        started=started,
        ended=ended,
        seconds=max(0.0, ((ended or datetime.now(UTC)) - started).total_seconds()) if started else 0.0,
    )


def is_queued_by_kueue(rayjob: Mapping[str, Any]) -> bool:
    """Whether Kueue decides when it starts."""
    return QUEUE_LABEL in (rayjob["metadata"].get("labels") or {})


def _annotations(rayjob: Mapping[str, Any]) -> Mapping[str, str]:
    return rayjob["metadata"].get("annotations") or {}


def _label(thing: Mapping[str, Any], name: str) -> str | None:
    value = (thing["metadata"].get("labels") or {}).get(name)
    return None if value is None else str(value)


def _scale(annotations: Mapping[str, str]) -> Scale | None:
    try:
        return Scale.model_validate_json(annotations.get(SCALE, ""))
    except ValidationError:  # from another version, or edited by hand
        return None


def _workers(status: Mapping[str, Any], pods: Iterable[Mapping[str, Any]], scale: Scale | None) -> int | None:
    """Count worker processes: the capacity of the pods that are ready."""
    if scale is None:
        return None
    ready = sum(_is_ready(pod) for pod in pods if _label(pod, "ray.io/node-type") == "worker")
    nodes = ready or (status.get("rayClusterStatus") or {}).get("readyWorkerReplicas") or 0
    return min(scale.workers, int(nodes) * scale.workers_per_node)


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _events_of(
    rayjob: Mapping[str, Any], pods: Iterable[Mapping[str, Any]], events: Iterable[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Return warnings about a job and its objects, newest first."""
    names = {rayjob["metadata"]["name"], (rayjob.get("status") or {}).get("rayClusterName")}
    names |= {pod["metadata"]["name"] for pod in pods}
    own = [
        one
        for one in events
        if one.get("type") == "Warning" and (one.get("involvedObject") or {}).get("name") in names - {None}
    ]
    return sorted(own, key=_moment, reverse=True)


def _moment(event: Mapping[str, Any]) -> str:
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return next((str(one) for one in times if one), "")


def _time(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:  # there is none yet, or it was edited by hand
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
