"""Training jobs in a namespace of their own, which the platform names."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cytoray_analysis.errors import ForbiddenError, JobNotFoundError, PlatformError
from cytoray_services.jobs.kubernetes.backend import KubernetesBackend, open_kubernetes
from cytoray_services.jobs.kubernetes.errors import RefusedError, explain
from services.jobs.kubernetes.api_server import ApiServer
from services.jobs.kubernetes.kuberay import NAMESPACE
from services.jobs.kubernetes.lab import make_submission, set_platform

TRAINING = "lab-training"


@pytest.fixture
def divided(server: ApiServer, place: KubernetesBackend) -> KubernetesBackend:
    set_platform(server, f"namespace: {TRAINING}\nhome_claim: cytoray-training\ndata_claims: [images]\n")
    server.objects.create("namespaces", "", {"metadata": {"name": TRAINING}})
    server.objects.create("serviceaccounts", TRAINING, {"metadata": {"name": "cytoray-training"}})
    for claim in ("cytoray-training", "images"):
        server.objects.create("persistentvolumeclaims", TRAINING, {"metadata": {"name": claim}})
    return place


def test_a_job_runs_where_the_platform_says_and_is_found_under_the_name_of_the_release(
    server: ApiServer, divided: KubernetesBackend
) -> None:
    job = divided.submit(make_submission(), owner="ann", team="cells")
    assert server.objects.names("rayjobs", TRAINING) == [job.id]
    assert job.id in server.objects.names("configmaps", TRAINING)
    assert server.objects.names("rayjobs", NAMESPACE) == []
    assert server.objects.names("configmaps", NAMESPACE) == ["cytoray-platform"]
    again = open_kubernetes("")
    assert [one.id for one in again.list()] == [job.id]
    assert again.show(job.id).team == "cells"
    assert again.stop(job.id).state == "cancelled"


def test_what_would_be_sent_names_the_namespace_of_trainings(divided: KubernetesBackend) -> None:
    objects = list(yaml.safe_load_all(divided.manifest(make_submission(), owner="ann")))
    assert {one["metadata"]["namespace"] for one in objects} == {TRAINING}


def test_refusals_name_the_namespace_of_trainings(server: ApiServer, divided: KubernetesBackend) -> None:
    with pytest.raises(JobNotFoundError, match=f"no job nuclei-x7k2q in the namespace {TRAINING}"):
        divided.show("nuclei-x7k2q")
    server.objects.delete("persistentvolumeclaims", TRAINING, "cytoray-training")
    with pytest.raises(PlatformError, match=f"no volume claim cytoray-training in the namespace {TRAINING}"):
        divided.submit(make_submission(), owner="ann")
    server.forbidden = {("create", "rayjobs")}
    with pytest.raises(ForbiddenError, match=f"no permission to create rayjobs.ray.io in the namespace {TRAINING}"):
        divided.submit(make_submission(), owner="ann")


def test_without_a_look_at_the_platform_a_list_says_nothing_of_it(
    server: ApiServer, kubeconfig: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.forbidden = {("get", "configmaps")}
    assert open_kubernetes("").list() == []
    assert capsys.readouterr().err == ""


def test_a_refusal_of_the_admission_policy_is_reported_in_its_own_words() -> None:
    message = (
        "rayjobs.ray.io \"a\" is forbidden: ValidatingAdmissionPolicy 'cytoray-rayjobs' with binding 'jobs' "
        "denied request: expected only the secrets that are listed"
    )
    for code in (403, 422):
        explained = explain(RefusedError(code, {"message": message, "reason": "Invalid"}), namespace="a", context="")
        assert isinstance(explained, ForbiddenError)
        assert explained.message == (
            "the cluster's rule cytoray-rayjobs forbids it: expected only the secrets that are listed"
        )
