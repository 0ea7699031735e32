"""Why a job waits or has failed: in one sentence, with what to do, as soon as the cluster says it."""

from __future__ import annotations

from typing import Any

import pytest

from cytoray_services.jobs.kubernetes.backend import KubernetesBackend
from services.jobs.kubernetes.api_server import ApiServer
from services.jobs.kubernetes.kuberay import NAMESPACE, Operator
from services.jobs.kubernetes.lab import Submit


def waiting(kind: str, message: str, container: str = "ray-worker") -> dict[str, Any]:
    state = {"waiting": {"reason": kind, "message": message}}
    return {"phase": "Pending", "containerStatuses": [{"name": container, "image": "cytoray:9.9", "state": state}]}


def unschedulable(message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"phase": "Pending", "conditions": [condition]}


@pytest.mark.parametrize(
    ("status", "reason", "hint"),
    [
        (
            waiting("ImagePullBackOff", 'Back-off pulling image "cytoray:9.9"'),
            'the image cytoray:9.9 cannot be pulled (ImagePullBackOff): Back-off pulling image "cytoray:9.9"',
            "pull secrets",
        ),
        (
            waiting("ErrImagePull", "not found"),
            "the image cytoray:9.9 cannot be pulled (ErrImagePull): not found",
            "push",
        ),
        (
            waiting("InvalidImageName", "couldn't parse image"),
            "the image cytoray:9.9 cannot be pulled (InvalidImageName): couldn't parse image",
            "pull secrets",
        ),
        (
            waiting("CreateContainerConfigError", 'secret "bucket" not found'),
            'a container cannot be started (CreateContainerConfigError): secret "bucket" not found',
            "secrets",
        ),
        (
            {
                "phase": "Failed",
                "containerStatuses": [
                    {"name": "ray-worker", "state": {"terminated": {"exitCode": 1, "message": "no ray"}}}
                ],
            },
            "the container ray-worker ended with 1: no ray",
            "kubectl logs",
        ),
        (
            unschedulable(
                "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available"
            ),
            "no node has enough nvidia.com/gpu free: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu. "
            "preemption: 0/3 nodes are available",
            "scale",
        ),
        (
            unschedulable("0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."),
            "no node matches the request: 0/3 nodes are available: "
            "3 node(s) didn't match Pod's node affinity/selector.",
            "scale.accelerator",
        ),
        (
            unschedulable('0/3 nodes are available: persistentvolumeclaim "images" not found.'),
            'a volume claim does not exist: 0/3 nodes are available: persistentvolumeclaim "images" not found.',
            "claims",
        ),
    ],
)
def test_why_pods_do_not_start(
    server: ApiServer, place: KubernetesBackend, submit: Submit, status: dict[str, Any], reason: str, hint: str
) -> None:
    operator = Operator(server, submit())
    operator.initialize()
    *_, worker = operator.make_pods()
    operator.set_pod(worker, **status)

    for job in (place.show(operator.name), *place.list()):
        assert (job.state, job.reason) == ("queued", reason)
        assert job.hint is not None
        assert hint in job.hint


@pytest.mark.parametrize(
    ("kind", "message", "reason"),
    [
        (
            "FailedToCreateWorkerPod",
            'Failed to create worker Pod for the cluster, pods "x" is forbidden: exceeded quota: gpus, requested: '
            "requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu=4, limited: requests.nvidia.com/gpu=4",
            "the quota gpus is exceeded: requests.nvidia.com/gpu=1 requested, requests.nvidia.com/gpu=4 used, "
            "requests.nvidia.com/gpu=4 allowed",
        ),
        (
            "FailedToCreateHeadPod",
            'Failed to create head Pod: pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot',
            'the namespace forbids such pods: Failed to create head Pod: pods "x" is forbidden: violates PodSecurity '
            '"restricted:latest": runAsNonRoot',
        ),
        ("FailedMount", 'configmap "y" not found', 'a volume cannot be mounted: configmap "y" not found'),
    ],
)
def test_why_the_cluster_does_not_make_pods(
    server: ApiServer, place: KubernetesBackend, submit: Submit, kind: str, message: str, reason: str
) -> None:
    operator = Operator(server, submit())
    operator.initialize()
    operator.warn(kind, message)
    operator.warn("FailedMount", "of another job", about="another", at="2026-11-20T11:00:00Z")

    assert place.show(operator.name).reason == reason


def test_what_has_been_overcome_is_no_reason(server: ApiServer, place: KubernetesBackend, submit: Submit) -> None:
    operator = Operator(server, submit())
    operator.initialize()
    operator.warn("FailedToCreateHeadPod", 'pods "x" is forbidden: violates PodSecurity "restricted:latest"')
    *_, worker = operator.make_pods()
    operator.warn("FailedScheduling", "0/3 nodes are available: 3 Insufficient cpu.", about=worker)

    assert place.show(operator.name).reason == "its pods are starting: 2 of 2 left"


def test_events_and_pods_that_the_caller_may_not_see_do_not_matter(
    server: ApiServer, place: KubernetesBackend, submit: Submit, capsys: pytest.CaptureFixture[str]
) -> None:
    operator = Operator(server, submit())
    operator.initialize()
    server.forbidden |= {("list", "events"), ("list", "pods")}

    assert place.show(operator.name).reason == "its cluster is being created"
    assert "not checked, because of missing permissions: events" in capsys.readouterr().err


AT_THE_END = """Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000 chars):
epoch 3: loss 0.2
error: the loss is not a number after 120 steps
 hint: lower training.learning_rate
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "reason", "hint"),
    [
        (
            {"reason": "AppFailed", "message": AT_THE_END},
            "the loss is not a number after 120 steps",
            "lower training.learning_rate",
        ),
        (
            {
                "reason": "AppFailed",
                "message": "Job entrypoint command failed with exit code 1, last available logs: x",
            },
            "Job entrypoint command failed with exit code 1",
            "logs",
        ),
        (
            {"reason": "AppFailed", "message": "Job entrypoint command failed with exit code 137"},
            "its driver was killed, probably for lack of memory",
            "headMemory",
        ),
        (
            {"reason": "DeadlineExceeded", "message": "The RayJob has"},
            "it exceeded the maximum time of a job",
            "deadline",
        ),
        (
            {"reason": "PreRunningDeadlineExceeded", "message": "…"},
            "it did not get its nodes in scale.wait_minutes",
            "later",
        ),
        (
            {"reason": "SubmissionFailed", "message": "Job submission has failed. Reason: BackoffLimitExceeded."},
            "it could not be submitted to its cluster: Job submission has failed. Reason: BackoffLimitExceeded.",
            "logs",
        ),
        ({"message": ""}, "it failed without a reason", "logs"),
    ],
)
def test_why_a_job_has_failed(
    server: ApiServer, place: KubernetesBackend, submit: Submit, status: dict[str, Any], reason: str, hint: str
) -> None:
    operator = Operator(server, submit())
    operator.initialize()
    operator.finish("FAILED", **status)

    job = place.show(operator.name)

    assert (job.state, job.reason) == ("failed", reason)
    assert job.hint is not None
    assert hint in job.hint


def test_a_pod_that_took_too_much_memory(server: ApiServer, place: KubernetesBackend, submit: Submit) -> None:
    operator = Operator(server, submit())
    operator.initialize()
    *_, worker = operator.make_pods()
    ended = {"name": "ray-worker", "state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}
    operator.set_pod(worker, phase="Failed", containerStatuses=[ended])
    operator.finish("FAILED", reason="AppFailed", message="Job entrypoint command failed with exit code 1")

    job = place.show(operator.name)

    assert job.reason == f"the pod {worker} exceeded its memory limit (OOMKilled)"
    assert job.hint == "raise scale.memory_per_worker, or train on smaller batches"


def test_a_job_that_the_operator_refuses(server: ApiServer, place: KubernetesBackend, submit: Submit) -> None:
    operator = Operator(server, submit())
    server.objects.merge("rayjobs", NAMESPACE, operator.name, {"spec": {"activeDeadlineSeconds": 0}})
    operator.initialize()

    job = place.show(operator.name)

    assert (job.state, job.reason) == (
        "failed",
        "KubeRay rejects it: activeDeadlineSeconds must be a positive integer",
    )
