"""Install, upgrade, uninstall, install again: what Kubernetes refuses is refused before, and nothing hangs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cytoray_services.jobs.kubernetes.removal import __name__ as removal
from deploy.charts import CASES, CHART, named, render, values
from deploy.existing_cluster import render_into

pytestmark = pytest.mark.slow

ANNOTATIONS = {"meta.helm.sh/release-name": "other", "meta.helm.sh/release-namespace": "elsewhere"}
CORE, APPS = "/api/v1/namespaces/lab", "/apis/apps/v1/namespaces/lab"
POLICIES = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
OF_THE_CLUSTER = ("Namespace", "PriorityClass", "ClusterRole", "ClusterRoleBinding", *POLICIES)
RBAC, PRIORITY = "/apis/rbac.authorization.k8s.io/v1", "/apis/scheduling.k8s.io/v1"


def made(kind: str, name: str, annotations: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    metadata = {"name": name, "annotations": annotations or {}, "labels": {"app.kubernetes.io/managed-by": "Helm"}}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **fields}


def claim(size: str, **fields: Any) -> dict[str, Any]:
    return {"spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": size}}, **fields}}


def set_of(name: str, size: str, annotations: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    spec = {"volumeClaimTemplates": [claim(size, **fields)]}
    return made("StatefulSet", f"cytoray-{name}", annotations, spec=spec)


@pytest.mark.parametrize(
    ("path", "existing", "settings", "sentence"),
    [
        (
            f"{CORE}/configmaps/cytoray-platform",
            made("ConfigMap", "cytoray-platform", ANNOTATIONS),
            (),
            "namespace lab: expected no other release, got the ConfigMap cytoray-platform of the release other",
        ),
        (
            f"{CORE}/secrets/cytoray-s3",
            made("Secret", "cytoray-s3", ANNOTATIONS),
            (),
            "kubectl --namespace lab annotate secret cytoray-s3 meta.helm.sh/release-name=cytoray --overwrite",
        ),
        (
            f"{RBAC}/clusterroles/kuberay-operator",
            made("ClusterRole", "kuberay-operator", ANNOTATIONS),
            ("kuberay-operator.enabled=true",),
            "kuberay-operator.enabled: expected false, because the release elsewhere/other already installs the",
        ),
        (
            f"{APPS}/statefulsets/cytoray-postgresql",
            set_of("postgresql", "5Gi"),
            ("postgresql.size=10Gi",),
            "postgresql.size: expected 5Gi, with which the claim data-cytoray-postgresql-0 was created, got 10Gi",
        ),
        (
            f"{APPS}/statefulsets/cytoray-redis",
            set_of("redis", "1Gi"),
            ("redis.size=500Mi",),
            "redis.size: expected 1Gi",
        ),
        (
            f"{APPS}/statefulsets/cytoray-s3",
            set_of("s3", "20Gi", storageClassName="slow"),
            ("objectStore.storageClass=fast",),
            'objectStore.storageClass: expected "slow"',
        ),
        (
            f"{CORE}/persistentvolumeclaims/cytoray-home",
            made("PersistentVolumeClaim", "cytoray-home", **claim("50Gi")),
            ("home.size=10Gi",),
            "home.size: expected at least 50Gi, which the claim cytoray-home has, got 10Gi",
        ),
        (
            f"{CORE}/persistentvolumeclaims/cytoray-home",
            made("PersistentVolumeClaim", "cytoray-home", **claim("50Gi")),
            ("home.accessMode=ReadWriteOnce",),
            "home.accessMode: expected ReadWriteMany",
        ),
        (
            f"{CORE}/persistentvolumeclaims/cytoray-audit",
            made("PersistentVolumeClaim", "cytoray-audit", **claim("2Gi")),
            (),
            "jobs.audit.size: expected at least 2Gi",
        ),
        (
            "/api/v1/namespaces/train/persistentvolumeclaims/cytoray-training",
            made("PersistentVolumeClaim", "cytoray-training", **claim("50Gi")),
            ("training.namespace=train", "home.size=10Gi"),
            "home.size: expected at least 50Gi, which the claim cytoray-training has",
        ),
        (
            f"{PRIORITY}/priorityclasses/lab-training",
            made("PriorityClass", "lab-training", value=1000),
            ("priorityClasses.create=true", "priorityClasses.training=7"),
            "priorityClasses.training: expected 1000, which the priority class lab-training has",
        ),
    ],
)
def test_what_a_cluster_would_refuse_is_refused_with_what_to_do(
    path: str, existing: dict[str, Any], settings: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    done = render_into({path: existing}, tmp_path, *settings)
    assert done.returncode != 0
    assert sentence in done.stderr


@pytest.mark.parametrize("release", ["cytoray", "second"])
def test_an_upgrade_and_a_release_in_another_namespace_find_nothing_in_their_way(release: str, tmp_path: Path) -> None:
    own = {"meta.helm.sh/release-name": release, "meta.helm.sh/release-namespace": "lab"}
    objects = {
        f"{CORE}/configmaps/cytoray-platform": made("ConfigMap", "cytoray-platform", own),
        f"{CORE}/secrets/cytoray-s3": made("Secret", "cytoray-s3", own),
        f"{CORE}/persistentvolumeclaims/cytoray-home": made(
            "PersistentVolumeClaim", "cytoray-home", own, **claim("50Gi", storageClassName="standard")
        ),
        f"{APPS}/statefulsets/cytoray-postgresql": set_of("postgresql", "5120Mi", own),
        f"{RBAC}/clusterroles/kuberay-operator": made("ClusterRole", "kuberay-operator", own),
        f"{PRIORITY}/priorityclasses/lab-training": made("PriorityClass", "lab-training", own, value=1000),
    }
    settings = ("kuberay-operator.enabled=true", "home.size=80Gi", "priorityClasses.create=true")
    done = render_into(objects, tmp_path, *settings, release=release)
    assert (done.returncode, done.stderr) == (0, "")


def test_two_releases_share_no_object_of_the_cluster() -> None:
    def of_the_cluster(namespace: str) -> set[tuple[str, str]]:
        changes: dict[str, Any] = {"training": {"namespace": f"{namespace}-training"}}
        manifests = render("production", namespace=namespace, **changes)
        return {(one["kind"], one["metadata"]["name"]) for one in manifests if one["kind"] in OF_THE_CLUSTER}

    first, second = of_the_cluster("one"), of_the_cluster("two")
    assert {kind for kind, _ in first} == {"Namespace", "PriorityClass", *POLICIES}
    assert not first & second


@pytest.mark.parametrize("case", CASES)
def test_before_an_uninstall_kuberay_takes_the_service_apart(case: str) -> None:
    hooks = [one for one in render(CASES[case]) if "helm.sh/hook" in one["metadata"].get("annotations", {})]
    job = named(hooks, "Job/cytoray-uninstall")
    for one in hooks:
        annotations = one["metadata"]["annotations"]
        assert annotations["helm.sh/hook"] == "pre-delete"
        assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
        # The account and its rights come first.
        assert (int(annotations["helm.sh/hook-weight"]) < 0) is (one is not job)
    pod = job["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == named(hooks, "ServiceAccount/cytoray-uninstall")["metadata"]["name"]
    (rule,) = named(hooks, "Role/cytoray-uninstall")["rules"]
    assert rule == {
        "apiGroups": ["ray.io"],
        "resources": ["rayservices", "rayclusters", "rayjobs"],
        "verbs": ["list", "delete"],
    }
    # Helm waits for 300 seconds.
    assert job["spec"]["activeDeadlineSeconds"] < 300
    command = pod["containers"][0]["command"]
    assert command[:3] == ["python", "-m", removal]
    assert ("--jobs" in command) is values(CASES[case]).get("kuberay-operator", {}).get("enabled", False)


def test_trainings_in_a_namespace_of_their_own_go_with_the_operator() -> None:
    manifests = render("laptop", training={"namespace": "elsewhere"})
    roles = {
        one["metadata"]["namespace"]: one["rules"]
        for one in manifests
        if one["kind"] == "Role" and one["metadata"]["name"] == "cytoray-uninstall"
    }
    assert roles.keys() == {"cytoray", "elsewhere"}
    command = named(manifests, "Job/cytoray-uninstall")["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[-3:] == ["--jobs", "--training-namespace", "elsewhere"]


def test_without_a_service_and_an_operator_there_is_nothing_to_take_apart() -> None:
    assert not [one for one in render(serving={"enabled": False}) if "uninstall" in one["metadata"]["name"]]


def test_values_say_what_cannot_be_changed_later() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    before = [lines[at - 1] for at, line in enumerate(lines) if line.strip().startswith("size:")]
    assert len(before) == 5
    assert all("later" in line for line in before)
