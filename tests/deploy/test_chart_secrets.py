"""A secret that was changed in the cluster reaches the pods with the next upgrade."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import yaml

from deploy.charts import CHART, Manifest, load_all, pod_templates, render
from deploy.existing_cluster import render_into

pytestmark = pytest.mark.slow  # Helm asks a cluster

Secrets = dict[str, dict[str, str]]


class Cluster:
    """A namespace in which Helm finds secrets, and the account that every namespace has."""

    def __init__(self) -> None:
        self.secrets: Secrets = {}
        self.made = "monday"

    def objects(self) -> dict[str, Manifest]:
        """Return what is there by its address."""
        found = {"serviceaccounts/default": self._object("ServiceAccount", "default")}
        for name, secret in self.secrets.items():
            data = {key: base64.b64encode(value.encode()).decode() for key, value in secret.items()}
            found[f"secrets/{name}"] = self._object("Secret", name) | {"data": data}
        return {f"/api/v1/namespaces/cytoray/{path}": one for path, one in found.items()}

    def _object(self, kind: str, name: str) -> Manifest:
        release = {"meta.helm.sh/release-name": "cytoray", "meta.helm.sh/release-namespace": "cytoray"}
        labels = {"app.kubernetes.io/managed-by": "Helm"}
        metadata = {"name": name, "uid": f"{self.made}-{name}", "annotations": release, "labels": labels}
        return {"apiVersion": "v1", "kind": kind, "metadata": metadata}

    def render(self, folder: Path, values: Manifest) -> list[Manifest]:
        """Render the chart as an installation or an upgrade does, which ask the cluster."""
        done = render_into(self.objects(), folder, namespace="cytoray", values=values)
        assert done.returncode == 0, done.stderr
        return [one for one in load_all(done.stdout) if one]


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def digests(manifests: list[Manifest]) -> dict[str, str | None]:
    return {
        place: template["metadata"].get("annotations", {}).get("checksum/secrets")
        for one in manifests
        for place, template in pod_templates(one)
    }


def store(cluster: Cluster, manifests: list[Manifest]) -> None:
    """Put the secrets of a release into the cluster."""
    for one in manifests:
        if one["kind"] == "Secret":
            cluster.secrets[one["metadata"]["name"]] = dict(one["stringData"])


def changed(before: dict[str, str | None], after: dict[str, str | None]) -> set[str]:
    return {place for place in before if before[place] != after[place]}


def test_secrets_that_the_chart_made_stay_and_start_no_pod_again(cluster: Cluster, tmp_path: Path) -> None:
    installed = cluster.render(tmp_path, {})
    store(cluster, installed)
    upgraded = cluster.render(tmp_path, {})
    assert digests(upgraded) == digests(installed)
    secrets = {one["metadata"]["name"]: one["stringData"] for one in upgraded if one["kind"] == "Secret"}
    assert secrets == cluster.secrets
    for place in ("RayService/cytoray head", "Deployment/cytoray-mlflow", "StatefulSet/cytoray-redis"):
        assert digests(installed)[place], place


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("cytoray-front", {"RayService/cytoray head"}),
        ("cytoray-redis", {"RayService/cytoray head", "StatefulSet/cytoray-redis"}),
        ("cytoray-postgresql", {"Deployment/cytoray-mlflow", "StatefulSet/cytoray-postgresql"}),
        ("cytoray-s3", {"RayService/cytoray head", "Deployment/cytoray-mlflow", "StatefulSet/cytoray-s3"}),
    ],
)
def test_a_changed_secret_starts_the_pods_that_read_it(
    cluster: Cluster, tmp_path: Path, name: str, places: set[str]
) -> None:
    installed = cluster.render(tmp_path, {})
    store(cluster, installed)
    key = min(cluster.secrets[name])
    cluster.secrets[name][key] = "rotated"
    upgraded = cluster.render(tmp_path, {})
    # A changed head is a new Ray cluster, workers and all.
    assert changed(digests(installed), digests(upgraded)) == places


def test_a_secret_of_the_operator_starts_them_too_and_its_digest_states_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    values = yaml.safe_load((CHART / "values" / "production.yaml").read_text())
    cluster.secrets = {
        "cytoray-postgresql-login": {"password": "weak"},
        "cytoray-redis-login": {"password": "weak"},
        "cytoray-front-login": {"secret": "weak"},
        "cytoray-s3-login": {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"},
    }
    before = digests(cluster.render(tmp_path, values))
    assert digests(cluster.render(tmp_path, values)) == before
    cluster.secrets["cytoray-postgresql-login"]["password"] = "rotated"  # noqa: S105
    after = digests(cluster.render(tmp_path, values))
    assert changed(before, after) == {"Deployment/cytoray-mlflow"}
    # A reader of a pod cannot try passwords: the secret's own number is in the digest.
    cluster.made = "tuesday"
    assert changed(after, digests(cluster.render(tmp_path, values))) == changed(dict.fromkeys(after), after)


def test_two_renders_without_a_cluster_are_the_same_but_for_secrets() -> None:
    first, second = ([one for one in render() if one["kind"] != "Secret"] for _ in range(2))
    assert first == second
