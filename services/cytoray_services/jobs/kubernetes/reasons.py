"""Why a job is queued or has failed, from Kubernetes, Kueue and KubeRay, in one sentence with a hint."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cytoray_services.jobs.kubernetes.errors import explain_admission
from cytoray_services.jobs.kubernetes.manifest import QUEUE_LABEL

_NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
_INSUFFICIENT = re.compile(r"Insufficient ([\w./-]*\w)")
_DEADLINE_HINT = "ask the operator to raise the deadline, or train for fewer epochs; the run continues where it was"


class Reason(NamedTuple):
    """One sentence and a hint."""

    text: str
    hint: str | None = None


def of_waiting(
    rayjob: Mapping[str, Any],
    pods: Sequence[Mapping[str, Any]],
    events: Iterable[Mapping[str, Any]],
    workload: Mapping[str, Any] | None,
) -> Reason:
    """Return why a job does not run yet.

    Parameters
    ----------
    rayjob, pods
        The job and its pods.
    events
        Warnings about them, newest first.
    workload
        Kueue's workload of the job.
    """
    status = rayjob.get("status") or {}
    deployment = status.get("jobDeploymentStatus") or ""
    for pod in pods:
        if found := _of_containers(pod) or _of_scheduling(pod):
            return found
    if deployment in ("Suspended", "Suspending") or (rayjob["spec"].get("suspend") and not deployment):
        return _of_queue(rayjob, workload)
    for event in events:
        found = None if _is_past(event, rayjob, pods) else _of_event(event)
        if found:
            return found
    if not deployment:
        return Reason("KubeRay has not processed it yet", "if this persists, check that the operator of KubeRay runs")
    if deployment == "Running":
        return Reason("its cluster is ready, and it is being submitted")
    waiting = sum((pod.get("status") or {}).get("phase") == "Pending" for pod in pods)
    return Reason(f"its pods are starting: {waiting} of {len(pods)} left" if pods else "its cluster is being created")


def of_failure(status: Mapping[str, Any], pods: Iterable[Mapping[str, Any]]) -> Reason:
    """Return why a job has failed."""
    kind, message = status.get("reason") or "", (status.get("message") or "").strip()
    for pod in pods:
        if found := _of_memory(pod):
            return found
    if kind == "DeadlineExceeded":
        return Reason("it exceeded the maximum time of a job", _DEADLINE_HINT)
    if kind == "PreRunningDeadlineExceeded":
        for pod in pods:
            if found := _of_containers(pod) or _of_scheduling(pod):
                return Reason(f"it did not get its nodes in time: {found.text}", found.hint)
        return Reason("it did not get its nodes in scale.wait_minutes", "try again later, or request less in scale")
    if kind == "ValidationFailed" or status.get("jobDeploymentStatus") == "ValidationFailed":
        return Reason(f"KubeRay rejects it: {message}", "check it with --dry-run, and change scale")
    if said := _of_driver(message):
        return said
    if "exit code 137" in message:
        return Reason("its driver was killed, probably for lack of memory", "ask the operator to raise headMemory")
    if kind == "SubmissionFailed":
        return Reason(f"it could not be submitted to its cluster: {message}", "see its logs")
    return Reason(_first_sentence(message) or "it failed without a reason", "see its logs")


def _of_driver(message: str) -> Reason | None:
    """Parse the error that the command printed at its end."""
    lines = message.splitlines()
    for at, line in reversed(list(enumerate(lines))):
        if line.startswith("error: "):
            hints = [one.strip().removeprefix("hint: ") for one in lines[at + 1 : at + 3] if " hint: " in one]
            return Reason(line.removeprefix("error: ").strip(), hints[0] if hints else "see its logs")
    return None


def _first_sentence(message: str) -> str:
    return re.split(r", last available logs|\n", message, maxsplit=1)[0].strip()[:300]


def _containers(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _of_containers(pod: Mapping[str, Any]) -> Reason | None:
    if found := _of_memory(pod):
        return found
    for container in _containers(pod):
        waiting = (container.get("state") or {}).get("waiting") or {}
        kind, message = waiting.get("reason") or "", waiting.get("message") or ""
        image = container.get("image") or _image(pod, container.get("name"))
        if kind in _NO_IMAGE:
            return Reason(
                f"the image {image} cannot be pulled ({kind}): {message or 'no reason given'}",
                "check the images and pull secrets of the platform, and push the image to where nodes can reach it",
            )
        if kind in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
            return Reason(
                f"a container cannot be started ({kind}): {message}",
                "check the secrets and claims that the platform names, and folders of claims in data.within",
            )
        ended = (container.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode"):
            why = ended.get("message") or ended.get("reason") or "no reason given"
            return Reason(
                f"the container {container.get('name')} ended with {ended['exitCode']}: {why}",
                f"see kubectl logs {pod['metadata']['name']} -c {container.get('name')}",
            )
        if kind == "CrashLoopBackOff":
            return Reason(f"a container ends repeatedly: {message}", "see the logs of its pods with kubectl")
    return None


def _of_memory(pod: Mapping[str, Any]) -> Reason | None:
    for container in _containers(pod):
        for state in ("state", "lastState"):
            ended = (container.get(state) or {}).get("terminated") or {}
            if ended.get("reason") == "OOMKilled":
                if ((pod["metadata"].get("labels") or {}).get("ray.io/node-type")) == "head":
                    hint = "ask the operator to raise headMemory"
                else:
                    hint = "raise scale.memory_per_worker, or train on smaller batches"
                return Reason(f"the pod {pod['metadata']['name']} exceeded its memory limit (OOMKilled)", hint)
    return None


def _image(pod: Mapping[str, Any], name: str | None) -> str:
    spec = pod.get("spec") or {}
    named = [one for one in [*(spec.get("initContainers") or []), *spec.get("containers", [])] if one["name"] == name]
    return str(named[0].get("image")) if named else "of the job"


def _of_scheduling(pod: Mapping[str, Any]) -> Reason | None:
    for one in (pod.get("status") or {}).get("conditions") or []:
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            return _unschedulable(one.get("message") or "no node fits")
    return None


def _unschedulable(message: str) -> Reason:
    missing = list(dict.fromkeys(_INSUFFICIENT.findall(message)))
    if missing:
        return Reason(
            f"no node has enough {' and '.join(missing)} free: {message}",
            "wait for nodes, or request less in the section scale of the recipe",
        )
    if "persistentvolumeclaim" in message:
        return Reason(f"a volume claim does not exist: {message}", "check the claims that the platform names")
    if "node affinity" in message or "node selector" in message or "untolerated taint" in message:
        return Reason(
            f"no node matches the request: {message}",
            "check scale.accelerator, scale.node_selector and scale.tolerations",
        )
    return Reason(f"no node accepts it: {message}", "wait for nodes, or request less in scale")


def _is_past(event: Mapping[str, Any], rayjob: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the problem of an event is solved: events stay for an hour."""
    kind = event.get("reason") or ""
    if kind == "FailedScheduling":
        return bool(pods)  # the conditions of the pods show the current state
    if kind in ("FailedToCreateHeadPod", "FailedToCreateWorkerPod"):
        groups = rayjob["spec"]["rayClusterSpec"].get("workerGroupSpecs") or []
        nodes = [pod for pod in pods if "ray.io/node-type" in (pod["metadata"].get("labels") or {})]
        return len(nodes) > sum(int(group.get("replicas") or 0) for group in groups)
    return False


def _of_event(event: Mapping[str, Any]) -> Reason | None:
    kind, message = event.get("reason") or "", event.get("message") or ""
    if rule := explain_admission(message):
        return Reason(*rule)
    if kind == "FailedScheduling":
        return _unschedulable(message)
    if kind in ("FailedMount", "FailedAttachVolume"):
        return Reason(f"a volume cannot be mounted: {message}", "check the claims that the platform names")
    if kind.startswith("FailedTo") or kind == "FailedCreate":
        return Reason(f"the cluster does not create its objects ({kind}): {message}", "ask the operator of the cluster")
    return None


def _of_queue(rayjob: Mapping[str, Any], workload: Mapping[str, Any] | None) -> Reason:
    queue = (rayjob["metadata"].get("labels") or {}).get(QUEUE_LABEL)
    if queue is None:
        return Reason("it was suspended by hand", f"kubectl edit rayjob {rayjob['metadata']['name']} can resume it")
    why = ""
    for one in ((workload or {}).get("status") or {}).get("conditions") or []:
        if one.get("type") == "QuotaReserved" and one.get("status") == "False" and one.get("message"):
            why = f": {one['message']}"
    return Reason(f"it waits in the queue {queue}{why}", "wait until other jobs have ended, or request less in scale")
