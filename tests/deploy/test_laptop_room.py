"""What the guide lets people try fits into the machine that it names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import pytest
import yaml

from cytoray_services.jobs.kubernetes.manifest import build
from cytoray_services.jobs.kubernetes.quantities import quantity, reserved
from cytoray_services.jobs.platform import Platform
from cytoray_services.jobs.scale import Scale
from cytoray_services.jobs.submission import Submission
from deploy.charts import REPOSITORY, Manifest, named, render

# Of kind with one node: API server, controllers, scheduler, etcd, names, network. And of KubeRay's operator.
OTHERS = (
    {"cpu": Decimal("0.95"), "memory": quantity("290Mi")},
    {"cpu": Decimal("0.1"), "memory": quantity("512Mi")},
)
GUIDE = REPOSITORY / "docs" / "guides" / "cluster.md"
PLACES = (GUIDE, REPOSITORY / "helm" / "README.md", REPOSITORY / "helm" / "cytoray" / "values" / "laptop.yaml")
Amounts = Mapping[str, Decimal]


def machine() -> Amounts:
    """Return what the guide says that the machine has."""
    said = re.search(r"(\d+) cores, (\d+) GB of memory and (\d+) GB of free disk", GUIDE.read_text(encoding="utf-8"))
    assert said is not None
    cores, memory, disk = (Decimal(one) for one in said.groups())
    return {"cpu": cores, "memory": memory * 10**9, "ephemeral-storage": disk * 10**9}


def added(amounts: Iterable[Amounts]) -> dict[str, Decimal]:
    total: dict[str, Decimal] = {}
    for one in amounts:
        for name, amount in one.items():
            total[name] = total.get(name, Decimal(0)) + amount
    return total


def times(pod: Manifest, number: int) -> Amounts:
    return {name: amount * number for name, amount in reserved(pod).items()}


def cluster_pods(cluster: Manifest) -> list[Amounts]:
    """Return what the pods of a Ray cluster reserve when all of them run."""
    head = reserved(cluster["headGroupSpec"]["template"]["spec"])
    scaled = reserved({"containers": [cluster["autoscalerOptions"]]}) if cluster["enableInTreeAutoscaling"] else {}
    groups = [times(one["template"]["spec"], one["maxReplicas"]) for one in cluster.get("workerGroupSpecs", ())]
    return [head, scaled, *groups]


@pytest.fixture(scope="module")
def manifests() -> list[Manifest]:
    return render("laptop")


@pytest.fixture(scope="module")
def service(manifests: list[Manifest]) -> list[Amounts]:
    return cluster_pods(named(manifests, "RayService/cytoray")["spec"]["rayClusterConfig"])


@pytest.fixture(scope="module")
def platform(manifests: list[Manifest]) -> list[Amounts]:
    kinds = ("Deployment", "StatefulSet")
    standing = [one["spec"] for one in manifests if one["kind"] in kinds]
    return [*OTHERS, *[times(one["template"]["spec"], one["replicas"]) for one in standing]]


def training(manifests: list[Manifest]) -> list[Amounts]:
    """Return what the job of the guide reserves, as the chart's platform makes it."""
    command = re.search(r"cytoray jobs train (training/recipes/\S+) (.*?)--on", GUIDE.read_text(), re.DOTALL)
    assert command is not None
    assert "scale" not in command[2]
    recipe = yaml.safe_load((REPOSITORY / command[1]).read_text(encoding="utf-8"))
    settings = yaml.safe_load(named(manifests, "ConfigMap/cytoray-platform")["data"]["platform.yaml"])
    submission = Submission(id="a", command="train", name="a", recipe="a", scale=Scale(**recipe["scale"]), data=())
    spec: dict[str, Any] = build(submission, Platform(**settings), owner="ann").rayjob["spec"]
    return [*cluster_pods(spec["rayClusterSpec"]), reserved(spec["submitterPodTemplate"]["spec"])]


def test_service_and_training_of_the_guide_run_beside_each_other_on_its_machine(
    manifests: list[Manifest], service: list[Amounts], platform: list[Amounts]
) -> None:
    asked = added([*platform, *service, *training(manifests)])
    assert {name: amount for name, amount in asked.items() if amount > machine()[name]} == {}


def test_a_second_cluster_finds_room_during_an_upgrade(service: list[Amounts], platform: list[Amounts]) -> None:
    asked = added([*platform, *service, *service])
    assert {name: amount for name, amount in asked.items() if amount > machine()[name]} == {}


def test_the_machine_is_the_same_wherever_it_is_named() -> None:
    for path in PLACES:
        text = " ".join(path.read_text(encoding="utf-8").replace("#", "").split())
        assert "6 cores, 16 GB of memory and 60 GB of free disk" in text, path
