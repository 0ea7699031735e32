"""The chart as Helm renders it: valid for an API server, refusing what is wrong, and safe by default."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.charts import (
    CASES,
    CHART,
    CRDS,
    EVERYTHING,
    VALUE_FILES,
    HelmError,
    Manifest,
    containers,
    copied,
    named,
    pod_templates,
    render,
    rendered_files,
    title,
    tool,
    validate,
    values,
)

FILES = [case for case in CASES if case != "everything"]


@pytest.fixture(params=CASES, scope="module")
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return render(CASES[request.param])


def test_there_are_value_files_for_a_laptop_one_gpu_and_production() -> None:
    assert {path.stem for path in VALUE_FILES} == {"laptop", "one-gpu", "production"}


@pytest.mark.slow
def test_an_api_server_would_take_every_manifest(manifests: list[Manifest]) -> None:
    if not CRDS.is_dir():
        pytest.skip(f"KubeRay's definitions are not at {CRDS}")
    assert [problem for one in manifests for problem in validate(one)] == []


@pytest.mark.slow
def test_no_two_objects_have_the_same_name(manifests: list[Manifest]) -> None:
    titles = [title(one) for one in manifests]
    assert sorted(set(titles)) == sorted(titles)


@pytest.mark.slow
@pytest.mark.parametrize("case", FILES)
def test_helm_finds_nothing_to_complain_about(case: str, tmp_path: Path) -> None:
    path = CASES[case]
    given = ["--values", str(path)] if isinstance(path, Path) else []
    lint = [tool("helm"), "lint", str(copied(tmp_path)), "--strict", "--quiet", "--namespace", "cytoray", *given]
    done = subprocess.run(lint, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr.strip()) == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "wrong", "sentence"),
    [
        ("laptop", {"serving": {"gateways": 0}}, "/serving/gateways"),
        ("laptop", {"home": {"accessMode": "ReadOnlyMany"}}, "/home/accessMode"),
        ("laptop", {"servin": {}}, "servin"),
        ("one-gpu", {"serving": {"gpu": {"gpus": "one"}}}, "/serving/gpu/gpus"),
        ("one-gpu", {"gpu": {"resource": "gpus"}}, "/gpu/resource"),
        ("one-gpu", {"image": {"cuda": "cytoray"}}, "/image/cuda"),
        ("production", {"serving": {"upgrade": {"type": "Rolling"}}}, "/serving/upgrade/type"),
        ("production", {"serving": {"upgrade": {"type": "NewClusterWithIncrementalUpgrade"}}}, "gatewayClass"),
        ("production", {"postgresql": {"secret": ""}}, "/postgresql/secret"),
        ("production", {"redis": {"secret": ""}}, "/redis/secret"),
        ("production", {"networkPolicy": {"apiServer": {"cidr": "anywhere"}}}, "/networkPolicy/apiServer/cidr"),
        ("production", {"serving": {"config": {"gateways": 7}}}, "/serving/config"),
        ("production", {"rayEnvironment": {"RAY_SERVE_LOG_TO_STDERR": 1}}, "/rayEnvironment/RAY_SERVE_LOG_TO_STDERR"),
    ],
)
def test_the_schema_refuses_a_wrong_value_and_says_which(case: str, wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HelmError) as caught:
        render(case, **wrong)
    assert sentence in str(caught.value)
    assert "schema" in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            {"serving": {"gpu": {"minReplicas": 3, "maxReplicas": 2}}},
            "expected at most serving.gpu.maxReplicas = 2, got 3",
        ),
        ({"mlflow": {"url": "https://registry.example.org"}}, "objectStore.external: expected true"),
        ({"ingress": {"enabled": True}}, "ingress.hosts: expected a name"),
        (
            {"image": {"pullPolicy": "Always"}},
            "image.cpu: expected a registry in the name, such as registry.example.org/cytoray:0.1.0-cpu",
        ),
        ({"home": {"existingClaim": "a"}, "dataClaims": ["a"]}, "dataClaims: expected volumes of data"),
        (
            {
                "serving": {"upgrade": {"type": "NewClusterWithIncrementalUpgrade", "gatewayClass": "istio"}},
                "ingress": {"enabled": True, "hosts": {"gateway": "a.example.org"}},
            },
            "ingress.hosts.gateway: expected an empty name",
        ),
    ],
)
def test_values_that_do_not_fit_each_other_are_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HelmError, match=re.escape(sentence)):
        render(wrong)


def paths(tree: dict[str, Any], place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in tree.items():
        yield (*place, key)
        if isinstance(value, dict):
            yield from paths(value, (*place, key))


def test_the_schema_knows_every_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert schema["additionalProperties"] is False
    for place in paths(yaml.safe_load((CHART / "values.yaml").read_text())):
        known: Any = schema
        for key in place:
            known = schema["definitions"][known["$ref"].rpartition("/")[2]] if "$ref" in known else known
            if key not in known.get("properties", {}):
                # Maps whose keys are the operator's: labels, variables, and what ServiceConfig checks.
                assert known.get("additionalProperties") is not False, f"the schema knows no {'.'.join(place)}"
                break
            known = known["properties"][key]


def test_every_value_has_a_comment() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    for before, line in pairwise(lines):
        if re.match(r"^\s*[A-Za-z_][\w-]*:( |$)", line):
            assert before.strip().startswith("#"), f"no comment above: {line}"


def all_containers(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Yield all containers, and the one that KubeRay adds to heads, as far as the chart says what it is like."""
    for one in manifests:
        yield from containers(one)
        if one["kind"] == "RayService":
            yield "autoscaler", one["spec"]["rayClusterConfig"]["autoscalerOptions"]


def test_every_container_is_without_privileges_and_cannot_write_to_its_image(manifests: list[Manifest]) -> None:
    seen = 0
    for place, container in all_containers(manifests):
        security = container["securityContext"]
        assert security["runAsNonRoot"] is True, place
        assert security["readOnlyRootFilesystem"] is True, place
        assert security["allowPrivilegeEscalation"] is False, place
        assert security["capabilities"] == {"drop": ["ALL"]}, place
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, place
        seen += 1
    assert seen >= 6


def test_every_pod_runs_as_a_user_of_its_own(manifests: list[Manifest]) -> None:
    for one in manifests:
        for place, template in pod_templates(one):
            security = template["spec"]["securityContext"]
            assert security["runAsNonRoot"] is True, place
            assert security["runAsUser"] == security["runAsGroup"] == security["fsGroup"] > 0, place
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}, place
            for field in ("hostNetwork", "hostPID", "hostIPC"):
                assert not template["spec"].get(field), place
            assert not any("hostPath" in volume for volume in template["spec"]["volumes"]), place


def test_every_container_reserves_and_is_limited(manifests: list[Manifest]) -> None:
    for place, container in all_containers(manifests):
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= container["resources"][kind].keys(), f"{place} {kind}"


def test_every_container_of_ours_is_probed(manifests: list[Manifest]) -> None:
    for one in manifests:
        for place, template in pod_templates(one):
            for container in template["spec"]["containers"]:
                probes = {"startupProbe", "readinessProbe", "livenessProbe"} & container.keys()
                # KubeRay adds those of Ray's containers, which no container with probes of its own gets.
                # A job ends by itself.
                wanted = 0 if one["kind"] in ("RayService", "Job") else 3
                assert len(probes) == wanted, f"{place} {container['name']}"


def test_only_the_jobs_service_and_what_runs_before_an_end_speak_to_the_api_server(manifests: list[Manifest]) -> None:
    for one in manifests:
        for place, template in pod_templates(one):
            spec = template["spec"]
            if place == "RayService/cytoray head":
                # KubeRay makes an account for the autoscaler; naming one here would take its place.
                assert "serviceAccountName" not in spec
                assert "automountServiceAccountToken" not in spec
            else:
                speaks = place in ("Deployment/cytoray-jobs", "Job/cytoray-uninstall")
                assert spec["automountServiceAccountToken"] is speaks, place


def test_no_role_sees_secrets_or_another_namespace(manifests: list[Manifest]) -> None:
    kinds = {one["kind"] for one in manifests}
    assert not kinds & {"ClusterRole", "ClusterRoleBinding"}
    for one in manifests:
        for rule in one.get("rules", []) if one["kind"] == "Role" else []:
            assert not {"secrets", "*"} & {*rule["resources"], *rule["verbs"], *rule["apiGroups"]}


SECRET_NAMES = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY|CREDENTIAL", re.IGNORECASE)


def test_no_variable_holds_a_secret(manifests: list[Manifest]) -> None:
    for place, container in all_containers(manifests):
        for variable in container.get("env", []):
            if SECRET_NAMES.search(variable["name"]):
                assert "value" not in variable, f"{place} {variable['name']}"
                assert "secretKeyRef" in variable["valueFrom"], f"{place} {variable['name']}"


@pytest.mark.slow
def test_a_generated_secret_is_written_down_nowhere_else_and_never_twice_the_same() -> None:
    def generated(namespace: str) -> dict[str, str]:
        secrets = [one for one in render(namespace=namespace) if one["kind"] == "Secret"]
        for one in secrets:
            # What was generated stays with the volumes that were made with it.
            assert one["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        return {f"{title(one)} {key}": value for one in secrets for key, value in one["stringData"].items()}

    first, second = generated("one"), generated("two")
    assert len(first) == 5
    assert all(len(value) == 32 for value in first.values())
    assert not set(first.values()) & set(second.values())
    manifests = [one for one in render() if one["kind"] != "Secret"]
    secrets = [value for one in render() if one["kind"] == "Secret" for value in one["stringData"].values()]
    assert not any(value in json.dumps(manifests) for value in secrets)


def test_production_makes_no_secret() -> None:
    assert [title(one) for one in render("production") if one["kind"] in ("Secret", "StatefulSet")] == []


def test_images_have_tags_and_no_latest(manifests: list[Manifest]) -> None:
    for place, container in all_containers(manifests):
        if place != "autoscaler":
            tag = container["image"].rpartition(":")[2]
            assert tag not in ("", "latest"), place
            assert "/" not in tag, place


def test_notes_say_what_to_do_next() -> None:
    for case in FILES:
        notes = rendered_files(CASES[case])["cytoray/templates/NOTES.txt"]
        for step in ("tokens create", "jobs train", "models promote", "/predict"):
            assert step in notes
    assert (
        "https://cytoray.example.org/models/NAME/predict" in rendered_files("production")["cytoray/templates/NOTES.txt"]
    )


def test_a_budget_never_keeps_a_node_from_being_emptied(manifests: list[Manifest]) -> None:
    for one in manifests:
        if one["kind"] == "PodDisruptionBudget":
            spec = one["spec"]
            if title(one) == "PodDisruptionBudget/cytoray-gateway":
                service = named(manifests, "RayService/cytoray")
                gateway = service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
                assert 1 <= spec["minAvailable"] < gateway["minReplicas"]
            else:
                assert spec["maxUnavailable"] == 1
    if not any(title(one) == "PodDisruptionBudget/cytoray-gateway" for one in manifests):
        assert (
            named(manifests, "RayService/cytoray")["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["replicas"] == 1
        )


def test_a_deployment_that_is_scaled_by_load_names_no_number_of_replicas() -> None:
    manifests = render(EVERYTHING)
    assert "replicas" not in named(manifests, "Deployment/cytoray-mlflow")["spec"]
    target = named(manifests, "HorizontalPodAutoscaler/cytoray-mlflow")["spec"]["scaleTargetRef"]
    assert target == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "cytoray-mlflow"}


def test_the_jobs_service_runs_alone() -> None:
    spec = named(render(EVERYTHING), "Deployment/cytoray-jobs")["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")


def test_rules_and_dashboards_of_the_chart_are_shipped() -> None:
    manifests = render(EVERYTHING)
    rules = sorted((CHART / "files" / "alerts").glob("*.yaml"))
    dashboards = sorted((CHART / "files" / "dashboards").glob("*.json"))
    for path in rules:
        shipped = named(manifests, f"PrometheusRule/cytoray-{path.stem}")
        assert shipped["spec"] == yaml.safe_load(path.read_text())
        assert shipped["metadata"]["labels"]["release"] == "prometheus"
    for path in dashboards:
        shipped = named(manifests, f"ConfigMap/cytoray-dashboard-{path.stem}")
        assert json.loads(shipped["data"][f"cytoray-{path.name}"]) == json.loads(path.read_text())
        assert shipped["metadata"]["labels"]["grafana_dashboard"] == "1"
    kinds = [one["kind"] for one in manifests]
    assert kinds.count("PrometheusRule") == len(rules)


def test_without_rules_and_dashboards_it_renders_all_the_same(tmp_path: Path) -> None:
    chart = copied(tmp_path)
    for folder in ("alerts", "dashboards"):
        shutil.rmtree(chart / "files" / folder, ignore_errors=True)
    files = rendered_files(EVERYTHING, chart=chart)
    assert not {"cytoray/templates/alerts.yaml", "cytoray/templates/dashboards.yaml"} & files.keys()


@pytest.mark.slow
def test_kuberays_operator_comes_where_a_value_file_asks_for_it(tmp_path: Path) -> None:
    mark = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: operator}\n"
    chart = copied(tmp_path, operator={"mark.yaml": mark})
    for case, comes in {"defaults": False, "laptop": True, "one-gpu": True, "production": False}.items():
        files = rendered_files(CASES[case], chart=chart)
        assert any("kuberay-operator" in path for path in files) is comes, case


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_an_operator_that_is_not_fetched_stops_only_releases_that_bring_it(case: str, tmp_path: Path) -> None:
    chart = copied(tmp_path, operator=None)
    if values(CASES[case]).get("kuberay-operator", {}).get("enabled"):
        with pytest.raises(HelmError, match="run helm dependency update"):
            rendered_files(CASES[case], chart=chart)
    files = rendered_files(values(CASES[case], **{"kuberay-operator": {"enabled": False}}), chart=chart)
    assert "cytoray/templates/rayservice.yaml" in files


def test_monitoring_is_off_where_its_definitions_may_be_missing() -> None:
    for case in (None, "laptop", "one-gpu"):
        assert not [one for one in render(case) if one["apiVersion"].startswith("monitoring.")]
