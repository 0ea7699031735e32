"""A namespace in which the chart is installed, and submissions to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cytoray_services.jobs.scale import Scale
from cytoray_services.jobs.submission import Submission
from services.jobs.kubernetes.api_server import ApiServer
from services.jobs.kubernetes.kuberay import NAMESPACE

RECIPE = "model:\n  name: nuclei\ndata:\n  root: pvc://images/nuclei\n"

Submit = Callable[..., str]


def make_submission(job_id: str = "nuclei-x7k2q", *, data: tuple[str, ...] = (), **scale: Any) -> Submission:
    return Submission(id=job_id, command="train", name="nuclei", recipe=RECIPE, scale=Scale(**scale), data=data)


def install(server: ApiServer) -> None:
    """Put in what the chart makes, and a node with four GPUs."""
    objects = server.objects
    for name in (NAMESPACE, "default"):
        objects.create("namespaces", "", {"metadata": {"name": name}})
    platform = "data_claims: [images]\n"
    objects.create(
        "configmaps", NAMESPACE, {"metadata": {"name": "cytoray-platform"}, "data": {"platform.yaml": platform}}
    )
    for claim in ("cytoray-home", "images"):
        objects.create("persistentvolumeclaims", NAMESPACE, {"metadata": {"name": claim}})
    objects.create("serviceaccounts", NAMESPACE, {"metadata": {"name": "cytoray-training"}})
    add_node(server, "gpu-0", offers={"nvidia.com/gpu": "4"})


def add_node(
    server: ApiServer, name: str, labels: dict[str, str] | None = None, offers: dict[str, str] | None = None
) -> None:
    allocatable = {"cpu": "64", "memory": "512Gi", "ephemeral-storage": "1000Gi"} | (offers or {})
    server.objects.create(
        "nodes", "", {"metadata": {"name": name, "labels": labels or {}}, "status": {"allocatable": allocatable}}
    )


def set_platform(server: ApiServer, text: str) -> None:
    server.objects.merge("configmaps", NAMESPACE, "cytoray-platform", {"data": {"platform.yaml": text}})
