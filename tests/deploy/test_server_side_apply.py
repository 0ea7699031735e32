"""A second server-side apply goes through: KubeRay's operator changes nothing of what is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cytoray_services.jobs.kubernetes.manifest import build
from cytoray_services.jobs.kubernetes.written_back import ADDED, canonical, written_back
from cytoray_services.jobs.platform import Platform
from deploy.charts import CASES, CRDS, REPOSITORY, Manifest, named, render
from services.jobs.kubernetes.lab import make_submission

# Where the operator's types, or its definitions, say that a field is written: KubeRay 1.7, Kubernetes 1.36.
SOURCES = {
    (
        "workerGroupSpecs[]",
        "numOfHosts",
    ): "kubebuilder:default of WorkerGroupSpec.NumOfHosts, apis/ray/v1/raycluster_types.go",
    ("workerGroupSpecs[]", "priority"): "default in config/crd/bases/ray.io_rayclusters.yaml",
    ("workerGroupSpecs[]", "scaleStrategy"): "WorkerGroupSpec.ScaleStrategy, a struct, apis/ray/v1/raycluster_types.go",
    ("template", "metadata"): "PodTemplateSpec.ObjectMeta, a struct, k8s.io/api/core/v1/types.go",
    ("submitterPodTemplate", "metadata"): "the same",
    ("containers[]", "resources"): "Container.Resources, a struct, k8s.io/api/core/v1/types.go",
    ("initContainers[]", "resources"): "the same",
    ("ports[]", "protocol"): "default in config/crd/bases/ray.io_rayclusters.yaml",
    ("clusterUpgradeOptions", "maxSurgePercent"): "default in config/crd/bases/ray.io_rayservices.yaml",
    ("resourceFieldRef", "divisor"): "ResourceFieldSelector.Divisor, a Quantity, k8s.io/api/core/v1/types.go",
}
ODD = [
    {"serving": {"cpu": {"resources": {"requests": {"cpu": "0.5", "memory": "8192Mi"}, "limits": {"cpu": "1000m"}}}}},
    {"serving": {"head": {"resources": {"requests": {"memory": "1.5Gi"}, "limits": {"memory": "4000000000"}}}}},
    {
        "serving": {
            "gateway": {"resources": {"requests": {"memory": "1.1Gi"}, "limits": {"memory": "1000Ki", "cpu": "1.250"}}}
        }
    },
    {
        "serving": {
            "autoscaler": {"resources": {"requests": {"cpu": "0.10", "memory": "512"}, "limits": {"memory": "2000M"}}}
        }
    },
    {"rayEnvironment": {"NOTHING": ""}},
    {
        "gpu": {
            "nodeSelector": {"node-role.kubernetes.io/gpu": ""},
            "tolerations": [{"key": "a", "value": "", "operator": "Exists"}],
        }
    },
    {"serving": {"upgrade": {"type": "NewClusterWithIncrementalUpgrade", "gatewayClass": "istio"}}},
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_kuberay_writes_the_service_back_as_it_was_sent(case: str) -> None:
    sent = named(render(CASES[case]), "RayService/cytoray")
    assert written_back(sent) == sent


@pytest.mark.slow
@pytest.mark.parametrize("odd", ODD)
def test_kuberay_writes_it_back_as_it_was_sent_whatever_way_values_are_written(odd: dict[str, Any]) -> None:
    sent = named(render(odd), "RayService/cytoray")
    assert written_back(sent) == sent


@pytest.mark.parametrize("path", sorted((REPOSITORY / "deploy" / "ray").glob("*.yaml")), ids=lambda path: path.name)
def test_kuberay_writes_the_examples_back_as_they_are(path: Path) -> None:
    for sent in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        if sent["apiVersion"].startswith("ray.io/"):
            assert written_back(sent) == sent


@pytest.mark.parametrize(
    "scale",
    [
        {},
        {"workers": 2, "memory_per_worker": "8192Mi", "scratch": "1000Gi"},
        {"workers": 8, "min_workers": 2, "gpus_per_worker": 1},
    ],
)
def test_kuberay_writes_a_job_back_as_it_was_sent(scale: dict[str, Any]) -> None:
    platform = Platform(head_memory="8192Mi", head_cpus="0.5", environment={"NOTHING": ""})
    sent = build(make_submission(**scale), platform, owner="ann").rayjob
    assert written_back(sent) == sent


def group(**fields: Any) -> Manifest:
    pod = {"containers": [{"name": "ray-worker", "image": "a", **fields}]}
    groups = [{"groupName": "cpu", "replicas": 0, "minReplicas": 0, "maxReplicas": 2, "template": {"spec": pod}}]
    return {"kind": "RayService", "spec": {"rayClusterConfig": {"workerGroupSpecs": groups}}}


def test_what_the_operator_adds_is_known() -> None:
    written = written_back(group(ports=[{"containerPort": 80}]))["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    assert (written["scaleStrategy"], written["numOfHosts"], written["priority"]) == ({}, 1, 0)
    assert written["template"]["metadata"] == {}
    container = written["template"]["spec"]["containers"][0]
    assert (container["resources"], container["ports"]) == ({}, [{"containerPort": 80, "protocol": "TCP"}])
    # Kept although it is 0: minReplicas is a pointer.
    assert written["minReplicas"] == 0


def test_every_field_that_is_added_has_a_source() -> None:
    assert {(place, field) for place, fields in ADDED.items() for field in fields} == SOURCES.keys()


@pytest.mark.slow
def test_the_definitions_of_kuberay_have_no_other_defaults_for_a_group() -> None:
    if not CRDS.is_dir():
        pytest.skip(f"KubeRay's definitions are not at {CRDS}")
    definition = yaml.load((CRDS / "ray.io_rayclusters.yaml").read_text(), Loader=yaml.CSafeLoader)
    (version,) = [one for one in definition["spec"]["versions"] if one["name"] == "v1"]
    groups = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["workerGroupSpecs"]
    # A list that is no map is owned as a whole: one field of another owner is a conflict in all of it.
    assert "x-kubernetes-list-type" not in groups
    defaults = {name: one["default"] for name, one in groups["items"]["properties"].items() if "default" in one}
    sent = named(render(), "RayService/cytoray")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert all(defaults.keys() <= one.keys() for one in sent)
    assert all(ADDED["workerGroupSpecs[]"][name] == defaults[name] for name in ("numOfHosts", "priority"))


@pytest.mark.parametrize(
    ("fields", "written"),
    [
        ({"env": [{"name": "A", "value": ""}]}, {"env": [{"name": "A"}]}),
        ({"env": []}, {}),
        ({"args": ["", "b"]}, {"args": ["", "b"]}),
        (
            {"volumeMounts": [{"name": "a", "mountPath": "/a", "readOnly": False, "subPath": ""}]},
            {"volumeMounts": [{"name": "a", "mountPath": "/a"}]},
        ),
        (
            {"securityContext": {"runAsNonRoot": False, "runAsUser": 0}},
            {"securityContext": {"runAsNonRoot": False, "runAsUser": 0}},
        ),
        ({"livenessProbe": {"periodSeconds": 5, "initialDelaySeconds": 0}}, {"livenessProbe": {"periodSeconds": 5}}),
        ({"resources": {"limits": {}, "requests": {"cpu": 2}}}, {"resources": {"requests": {"cpu": "2"}}}),
        ({"lifecycle": None}, {}),
    ],
)
def test_what_the_operator_leaves_out_or_writes_otherwise(fields: Manifest, written: Manifest) -> None:
    back = written_back(group(**fields))["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]
    container = back["containers"][0]
    if "resources" not in written:
        assert container.pop("resources") == {}
    assert container == {"name": "ray-worker", "image": "a", **written}


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        ("0.5", "500m"),
        ("1000m", "1"),
        (2, "2"),
        ("2000", "2k"),
        ("1.250", "1250m"),
        ("0", "0"),
        ("0.0", "0"),
        ("8192Mi", "8Gi"),
        ("1.5Gi", "1536Mi"),
        ("512", "512"),
        ("0.5Ki", "512"),
        ("0.1Gi", "107374182400m"),
        ("1000Ki", "1000Ki"),
        ("1024Gi", "1Ti"),
        ("2000M", "2G"),
        ("4000000000", "4G"),
        ("1e3", "1e3"),
        ("500m", "500m"),
    ],
)
def test_amounts_are_written_as_kubernetes_writes_them(amount: str | int, written: str) -> None:
    # As Quantity.CanonicalizeBytes of k8s.io/apimachinery does.
    assert canonical(amount) == written
