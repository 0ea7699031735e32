"""The jobs service with the rights that the chart gives it, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cytoray_services.jobs.kubernetes.backend import KubernetesBackend, open_kubernetes
from deploy.charts import Manifest, named, render, title
from services.jobs.kubernetes.api_server import ApiServer
from services.jobs.kubernetes.kuberay import NAMESPACE, Operator
from services.jobs.kubernetes.lab import make_submission

TRAINING = "lab-training"

# Of the whole cluster, which no Role of a namespace can give; the code goes on without them.
CLUSTER = {"nodes", "namespaces", "priorityclasses"}


class Beyond(set[tuple[str, str]]):
    """All pairs of verb and resource that a Role does not allow."""

    def __init__(self, role: Manifest) -> None:
        super().__init__()
        self.allowed = {
            (verb, resource) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]
        }
        self.refused: set[tuple[str, str]] = set()

    def __contains__(self, asked: Any) -> bool:
        if asked in self.allowed:
            return False
        self.refused.add(asked)
        return True


@pytest.fixture(params=["", TRAINING])
def server(request: pytest.FixtureRequest) -> Iterator[ApiServer]:
    """An API server with what the chart makes in a namespace, or in two."""
    server = ApiServer()
    for name in (NAMESPACE, TRAINING):
        server.objects.create("namespaces", "", {"metadata": {"name": name}})
    manifests = render({"training": {"namespace": request.param}}, namespace=NAMESPACE)
    kinds = {"ConfigMap": "configmaps", "PersistentVolumeClaim": "persistentvolumeclaims"}
    kinds |= {"ServiceAccount": "serviceaccounts", "Secret": "secrets"}
    for one in manifests:
        if one["kind"] in kinds:
            server.objects.create(kinds[one["kind"]], one["metadata"].get("namespace", NAMESPACE), one)
    server.forbidden = Beyond(named(manifests, "Role/cytoray-jobs"))
    yield server
    server.close()


@pytest.fixture
def place(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KubernetesBackend:
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))
    return open_kubernetes("")


@pytest.mark.slow
def test_the_jobs_service_may_do_all_that_it_does(server: ApiServer, place: KubernetesBackend) -> None:
    job = place.submit(make_submission(workers=2), owner="ann", team="cells")
    if server.objects.names("rayjobs", NAMESPACE):
        Operator(server, job.id).initialize()
    assert [one.id for one in place.list()] == [job.id]
    assert place.show(job.id).team == "cells"
    assert place.stop(job.id).state == "cancelled"
    refused = server.forbidden
    assert isinstance(refused, Beyond)
    # A look at secrets and at the cluster's nodes is what it goes without.
    assert {resource for _, resource in refused.refused} <= {"secrets", *CLUSTER}


@pytest.mark.slow
def test_every_right_is_one_that_the_jobs_service_uses_or_has_to_stop_a_job(server: ApiServer) -> None:
    beyond = server.forbidden
    assert isinstance(beyond, Beyond)
    assert not [one for one in beyond.allowed if one[0] in ("*", "update", "deletecollection", "escalate", "bind")]
    # No other ConfigMap is listed or removed; recipes go with their jobs.
    assert {verb for verb, resource in beyond.allowed if resource == "configmaps"} == {"create", "get", "patch"}
    assert {resource for _, resource in beyond.allowed} == {
        "rayjobs",
        "configmaps",
        "pods",
        "pods/log",
        "events",
        "persistentvolumeclaims",
        "serviceaccounts",
        "resourcequotas",
        "localqueues",
        "workloads",
    }


def test_where_trainings_have_a_namespace_the_jobs_service_changes_nothing_in_that_of_the_release() -> None:
    manifests = render({"training": {"namespace": TRAINING}}, namespace=NAMESPACE)
    account = {"kind": "ServiceAccount", "name": "cytoray-jobs", "namespace": NAMESPACE}
    bindings = [one for one in manifests if one["kind"] == "RoleBinding" and account in one["subjects"]]
    assert {(one["metadata"].get("namespace", NAMESPACE), one["roleRef"]["name"]) for one in bindings} == {
        (TRAINING, "cytoray-jobs"),
        (NAMESPACE, "cytoray-platform"),
    }
    [rule] = named(manifests, "Role/cytoray-platform")["rules"]
    assert (rule["resources"], rule["resourceNames"], rule["verbs"]) == (["configmaps"], ["cytoray-platform"], ["get"])
    # Nothing that others run or read lies where the jobs service may change ConfigMaps.
    assert not [
        title(one)
        for one in manifests
        if one["kind"] in ("ConfigMap", "Secret") and one["metadata"].get("namespace") == TRAINING
    ]
