"""Before a release goes, KubeRay takes its clusters apart while its operator is there."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cytoray_analysis.errors import PlatformError
from cytoray_services.jobs.kubernetes.connection import Cluster, connect
from cytoray_services.jobs.kubernetes.removal import remove
from services.jobs.kubernetes.api_server import ApiServer
from services.jobs.kubernetes.kuberay import NAMESPACE

SERVING = {"app.kubernetes.io/part-of": "cytoray", "app.kubernetes.io/component": "serving"}
TRAINING = SERVING | {"app.kubernetes.io/component": "training"}


def add(server: ApiServer, resource: str, name: str, labels: dict[str, str], **metadata: Any) -> dict[str, Any]:
    body = {"metadata": {"name": name, "labels": labels, "finalizers": [f"ray.io/{resource}"], **metadata}}
    return server.objects.create(resource, NAMESPACE, body)


@pytest.fixture
def cluster(server: ApiServer, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr("cytoray_services.jobs.kubernetes.removal._PAUSE", 0.01)
    service = add(server, "rayservices", "cytoray", SERVING)
    owner = {"kind": "RayService", "name": "cytoray", "uid": service["metadata"]["uid"]}
    add(server, "rayclusters", "cytoray-a1b2c", SERVING, ownerReferences=[owner])
    add(server, "rayjobs", "nuclei-x7k2q", TRAINING)
    add(server, "rayservices", "other-service", {})
    found = connect("", "")
    assert found is not None
    return found


@pytest.fixture
def operator(server: ApiServer) -> Iterator[list[str]]:
    """Take apart what is being deleted, clusters first, and note the order."""
    order: list[str] = []
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(0.02):
            for resource in ("rayclusters", "rayservices", "rayjobs"):
                for name in server.objects.names(resource, NAMESPACE):
                    one = server.objects.get(resource, NAMESPACE, name)
                    service_goes = "rayservices" in {kind for kind, _ in deleting(server)}
                    if "deletionTimestamp" in one["metadata"] or (resource == "rayclusters" and service_goes):
                        server.objects.merge(resource, NAMESPACE, name, {"metadata": {"finalizers": []}})
                        if name in server.objects.names(resource, NAMESPACE):
                            server.objects.delete(resource, NAMESPACE, name)
                        order.append(f"{resource}/{name}")

    thread = threading.Thread(target=work)
    thread.start()
    yield order
    ended.set()
    thread.join()


def deleting(server: ApiServer) -> list[tuple[str, str]]:
    return [
        (kind, name)
        for kind in ("rayservices", "rayjobs")
        for name in server.objects.names(kind, NAMESPACE)
        if "deletionTimestamp" in server.objects.get(kind, NAMESPACE, name)["metadata"]
    ]


def test_the_service_is_gone_with_its_clusters_and_trainings_go_on(
    server: ApiServer, cluster: Cluster, operator: list[str]
) -> None:
    assert remove(cluster, jobs=False, seconds=30) == ["rayservices/cytoray", "rayclusters/cytoray-a1b2c"]
    assert operator == ["rayclusters/cytoray-a1b2c", "rayservices/cytoray"]
    assert server.objects.names("rayjobs", NAMESPACE) == ["nuclei-x7k2q"]
    assert server.objects.names("rayservices", NAMESPACE) == ["other-service"]


def test_trainings_go_with_the_operator(server: ApiServer, cluster: Cluster, operator: list[str]) -> None:
    assert "rayjobs/nuclei-x7k2q" in remove(cluster, jobs=True, seconds=30)
    assert server.objects.names("rayjobs", NAMESPACE) == []
    assert server.objects.names("rayclusters", NAMESPACE) == []


def test_trainings_may_lie_in_another_namespace(server: ApiServer, cluster: Cluster, operator: list[str]) -> None:
    body = {"metadata": {"name": "in-default", "labels": TRAINING}}
    server.objects.create("rayjobs", "default", body)
    assert "rayjobs/in-default" in remove(cluster, jobs=True, seconds=30, training_namespace="default")
    assert server.objects.names("rayjobs", "default") == []
    assert server.objects.names("rayjobs", NAMESPACE) == ["nuclei-x7k2q"]


def test_without_an_operator_it_says_what_is_left(cluster: Cluster) -> None:
    began = time.monotonic()
    with pytest.raises(PlatformError, match=r"rayservices/cytoray, rayclusters/cytoray-a1b2c within 0\.2 s") as caught:
        remove(cluster, jobs=False, seconds=0.2)
    assert time.monotonic() - began < 10
    assert "operator of KubeRay runs" in str(caught.value.hint)


def test_where_kuberay_is_not_installed_nothing_is_left(server: ApiServer, cluster: Cluster) -> None:
    server.groups.discard("ray.io/v1")
    assert remove(cluster, jobs=True, seconds=5) == []


@pytest.mark.slow
def test_the_command_that_the_chart_runs_ends_with_one_sentence(cluster: Cluster, kubeconfig: Path) -> None:
    command = [sys.executable, "-m", "cytoray_services.jobs.kubernetes.removal", "--seconds", "0.1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "expected KubeRay to remove rayservices/cytoray" in done.stderr
