"""A namespace for training runs: what is in it, and what jobs there get."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from cytoray_services.jobs.platform import Platform
from deploy.charts import EVERYTHING, HelmError, Manifest, merged, named, render, title, validate

TRAINING = "cytoray-training"
DIVIDED = merged(EVERYTHING, {"training": {"namespace": TRAINING}, "platform": {"secrets": ["data-login"]}})


@pytest.fixture(scope="module")
def manifests() -> list[Manifest]:
    return render(DIVIDED)


def platform_of(manifests: list[Manifest]) -> Platform:
    return Platform.model_validate(
        yaml.safe_load(named(manifests, "ConfigMap/cytoray-platform")["data"]["platform.yaml"])
    )


@pytest.mark.slow
def test_an_api_server_would_take_all_of_it(manifests: list[Manifest]) -> None:
    assert [problem for one in manifests for problem in validate(one)] == []


def test_production_has_one_and_the_other_value_files_have_none() -> None:
    assert platform_of(render("production")).namespace == TRAINING
    assert all(platform_of(render(case)).namespace is None for case in (None, "laptop", "one-gpu"))


def test_what_lies_in_it(manifests: list[Manifest]) -> None:
    there = {title(one) for one in manifests if one["metadata"].get("namespace") == TRAINING}
    assert there == {
        "NetworkPolicy/cytoray-training",
        "NetworkPolicy/cytoray-training-heads",
        "PersistentVolumeClaim/cytoray-training",
        "ResourceQuota/cytoray-training",
        "Role/cytoray-jobs",
        "RoleBinding/cytoray-jobs",
        "ServiceAccount/cytoray-training",
    }


def test_it_is_restricted_and_stays_when_the_release_goes(manifests: list[Manifest]) -> None:
    metadata = named(manifests, f"Namespace/{TRAINING}")["metadata"]
    assert metadata["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert metadata["annotations"] == {"helm.sh/resource-policy": "keep"}
    hard = named(manifests, "ResourceQuota/cytoray-training")["spec"]["hard"]
    assert hard == {"services.loadbalancers": "0", "services.nodeports": "0"}


def test_it_may_be_there_already_and_be_limited() -> None:
    changes: Any = {"create": False, "existingClaim": "own", "quota": {"requests.cpu": "64"}}
    manifests = render(merged(DIVIDED, {"training": changes}))
    titles = {title(one) for one in manifests}
    assert not titles & {f"Namespace/{TRAINING}", "PersistentVolumeClaim/cytoray-training"}
    assert platform_of(manifests).home_claim == "own"
    assert named(manifests, "ResourceQuota/cytoray-training")["spec"]["hard"]["requests.cpu"] == "64"


def test_jobs_get_no_secret_of_the_platform(manifests: list[Manifest]) -> None:
    assert platform_of(manifests).secrets == ("data-login",)
    assert platform_of(render(merged(DIVIDED, {"platform": {"secrets": []}}))).secrets == ()


def test_services_of_the_release_are_found_from_there(manifests: list[Manifest]) -> None:
    environment = platform_of(manifests).environment
    assert environment["MLFLOW_TRACKING_URI"] == "http://cytoray-mlflow.cytoray:5000"
    assert environment["AWS_ENDPOINT_URL_S3"] == "http://cytoray-s3.cytoray:7070"
    outside = {"mlflow": {"url": "https://registry.example.org"}, "objectStore": {"external": True}}
    found = platform_of(render(merged(DIVIDED, outside))).environment
    assert found["MLFLOW_TRACKING_URI"] == "https://registry.example.org"


def test_no_label_takes_a_pod_out_of_its_network_policy(manifests: list[Manifest]) -> None:
    spec = named(manifests, "NetworkPolicy/cytoray-training")["spec"]
    assert spec["podSelector"] == {}
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    # Into the release only as a training, and to the registry and the bucket only.
    doors = {
        title(one)
        for one in manifests
        if one["kind"] == "NetworkPolicy"
        for rule in one["spec"].get("ingress", [])
        for source in rule["from"]
        if source.get("namespaceSelector") == {"matchLabels": {"kubernetes.io/metadata.name": TRAINING}}
    }
    assert doors == {"NetworkPolicy/cytoray-mlflow", "NetworkPolicy/cytoray-s3"}


def test_the_namespace_of_the_release_is_none_of_its_own() -> None:
    with pytest.raises(HelmError, match=re.escape("training.namespace: expected another namespace")):
        render(training={"namespace": "cytoray"})
