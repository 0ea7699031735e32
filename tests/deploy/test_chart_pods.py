"""What the pods of the chart may write, know and mount."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from cytoray_services.jobs.kubernetes.manifest import CERTIFICATES, build
from cytoray_services.jobs.kubernetes.quantities import quantity
from cytoray_services.jobs.platform import Platform
from cytoray_serving.front.limits import SECRET, Front
from deploy.charts import (
    CASES,
    EVERYTHING,
    HelmError,
    Manifest,
    containers,
    merged,
    named,
    pod_templates,
    render,
    title,
    validate,
)
from services.jobs.kubernetes.lab import make_submission

# Pods by the values that add to them.
KINDS = {
    "head": "RayService/cytoray head",
    "gateway": "RayService/cytoray gateway",
    "cpu": "RayService/cytoray cpu",
    "gpu": "RayService/cytoray gpu",
    "mlflow": "Deployment/cytoray-mlflow",
    "jobs": "Deployment/cytoray-jobs",
    "postgresql": "StatefulSet/cytoray-postgresql",
    "redis": "StatefulSet/cytoray-redis",
    "objectStore": "StatefulSet/cytoray-s3",
}


@pytest.fixture(params=CASES, scope="module")
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return render(CASES[request.param])


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for one in manifests:
        for place, template in pod_templates(one):
            yield place, template["spec"]


@pytest.mark.slow
def test_no_pod_can_fill_the_disk_of_its_node(manifests: list[Manifest]) -> None:
    for place, spec in pods(manifests):
        for volume in spec["volumes"]:
            if "emptyDir" in volume:
                assert quantity(volume["emptyDir"]["sizeLimit"]) > 0, f"{place} {volume['name']}"


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["3Gi", "1536Mi", "2.5Gi", "4G", "4294967296", "1Ki"])
def test_shared_memory_is_half_of_the_memory_that_it_counts_in(memory: str) -> None:
    resources = {"requests": {"memory": memory}, "limits": {"memory": memory}}
    changes: Any = {group: {"resources": resources} for group in ("head", "gateway", "cpu", "gpu")}
    for place, spec in pods([named(render(serving=changes), "RayService/cytoray")]):
        [volume] = [one for one in spec["volumes"] if one["name"] == "shared-memory"]
        assert quantity(volume["emptyDir"]["sizeLimit"]) == quantity(memory) / 2, place


def test_head_and_workers_know_the_secret_that_gateways_ask_of_their_proxy(manifests: list[Manifest]) -> None:
    places = list(containers(named(manifests, "RayService/cytoray")))
    references = []
    for place, container in places:
        [variable] = [one for one in container["env"] if one["name"] == SECRET]
        references.append(variable["valueFrom"]["secretKeyRef"])
        assert references[-1]["key"] == "secret", place
    assert len(places) >= 3
    assert all(one == references[0] for one in references)


def test_the_secret_of_the_front_is_made_once_or_is_the_operators() -> None:
    made = named(render(), "Secret/cytoray-front")
    assert made["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert Front.of({SECRET: made["stringData"]["secret"]}).secret == made["stringData"]["secret"]
    given = render(serving={"frontSecret": "own"})
    assert "Secret/cytoray-front" not in map(title, given)
    for _, container in containers(named(given, "RayService/cytoray")):
        assert {"name": "own", "key": "secret"} in [
            one["valueFrom"]["secretKeyRef"] for one in container["env"] if "valueFrom" in one
        ]


def test_only_the_jobs_service_mounts_the_volume_of_the_audit_trail(manifests: list[Manifest]) -> None:
    mounting = {
        place
        for place, spec in pods(manifests)
        for volume in spec["volumes"]
        if volume.get("persistentVolumeClaim", {}).get("claimName") == "cytoray-audit"
    }
    assert mounting == {"Deployment/cytoray-jobs"}
    claim = named(manifests, "PersistentVolumeClaim/cytoray-audit")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert Platform().home_claim != "cytoray-audit"


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong",
    [
        {"home": {"existingClaim": "one"}, "jobs": {"audit": {"existingClaim": "one"}}},
        {"dataClaims": ["one"], "jobs": {"audit": {"existingClaim": "one"}}},
        {"jobs": {"audit": {"existingClaim": "cytoray-home"}}},
    ],
)
def test_an_audit_trail_on_a_volume_that_others_write_is_refused(wrong: Manifest) -> None:
    with pytest.raises(HelmError, match=re.escape("jobs.audit.existingClaim: expected a volume that no other")):
        render(wrong)


def test_a_service_that_asks_no_one_for_a_token_is_refused() -> None:
    with pytest.raises(HelmError, match=r"serving\.config\.insecure_local: expected false, got true"):
        render(serving={"config": {"insecure_local": True}})
    render(serving={"config": {"insecure_local": False}})


def test_rays_processes_ask_for_a_token(manifests: list[Manifest]) -> None:
    assert named(manifests, "RayService/cytoray")["spec"]["rayClusterConfig"]["authOptions"] == {"mode": "token"}


def test_no_pod_runs_code_from_an_object_that_others_may_change() -> None:
    for case in ("defaults", "everything"):
        manifests = render(CASES[case])
        for place, spec in pods(manifests):
            maps = {one["configMap"]["name"]: one["name"] for one in spec["volumes"] if "configMap" in one}
            # Configurations, which are read and not run.
            assert maps.keys() <= {"cytoray-service", "cytoray-jobs"}, place
    assert named(render(EVERYTHING), "Deployment/cytoray-mlflow")


def extra(name: str) -> Manifest:
    """Return every further field of a pod, with a name that distinguishes them."""
    term = {"matchExpressions": [{"key": name, "operator": "Exists"}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    return {
        "annotations": {f"example.org/{name}": "1"},
        "environment": {name.upper(): "1"},
        "nodeSelector": {name: "1"},
        "tolerations": [{"key": name, "operator": "Exists"}],
        "affinity": {"nodeAffinity": required},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": name, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
        ],
        "imagePullSecrets": [name],
        "volumes": [{"name": name, "configMap": {"name": name}}],
        "volumeMounts": [{"name": name, "mountPath": f"/{name}", "readOnly": True}],
    }


def found_in(template: Manifest, name: str) -> set[str]:
    """Return the fields of `extra` that a pod has."""
    spec = template["spec"]
    container = spec["containers"][0]
    wanted = extra(name)
    there = {
        "annotations": wanted["annotations"].items() <= template["metadata"].get("annotations", {}).items(),
        "environment": {"name": name.upper(), "value": "1"} in container["env"],
        "nodeSelector": wanted["nodeSelector"].items() <= spec.get("nodeSelector", {}).items(),
        "affinity": spec.get("affinity") == wanted["affinity"],
        "imagePullSecrets": {"name": name} in spec.get("imagePullSecrets", []),
        "volumeMounts": wanted["volumeMounts"][0] in container["volumeMounts"],
        **{
            field: wanted[field][0] in spec.get(field, [])
            for field in ("tolerations", "topologySpreadConstraints", "volumes")
        },
    }
    return {field for field, has in there.items() if has}


@pytest.mark.slow
def test_every_kind_of_pod_takes_further_fields_and_no_other_kind_gets_them() -> None:
    manifests = render(EVERYTHING, pods={kind: extra(kind.lower()) for kind in KINDS})
    assert [problem for one in manifests for problem in validate(one)] == []
    templates = {place: template for one in manifests for place, template in pod_templates(one)}
    # What runs before an uninstall gets what all pods get.
    assert templates.keys() - {"Job/cytoray-uninstall"} == set(KINDS.values())
    for kind, place in KINDS.items():
        assert found_in(templates[place], kind.lower()) == extra("any").keys(), place
        for other in KINDS.keys() - {kind}:
            assert found_in(templates[place], other.lower()) == set(), f"{place} {other}"


@pytest.mark.slow
def test_what_all_pods_get_stands_beside_what_one_kind_gets() -> None:
    changes: Any = {"all": extra("everybody"), "mlflow": {"nodeSelector": {"disk": "fast"}}}
    own = {"serving": {"head": {"nodeSelector": {"everybody": "0", "own": "1"}}}}
    manifests = render(merged(EVERYTHING, own), pods=changes)
    assert [problem for one in manifests for problem in validate(one)] == []
    for one in manifests:
        for place, template in pod_templates(one):
            assert found_in(template, "everybody") == extra("any").keys(), place
    server = named(manifests, "Deployment/cytoray-mlflow")["spec"]["template"]["spec"]
    assert server["nodeSelector"] == {"everybody": "1", "disk": "fast"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"gateways": {}}, "gateways"),
        ({"head": {"volume": []}}, "/pods/head"),
        ({"head": {"volumes": [{"configMap": {"name": "a"}}]}}, "/pods/head/volumes/0"),
        ({"head": {"volumeMounts": [{"name": "a", "mountPath": "relative"}]}}, "/pods/head/volumeMounts/0/mountPath"),
        ({"all": {"affinity": {"nodes": {}}}}, "/pods/all/affinity"),
        ({"all": {"imagePullSecrets": [{"name": "a"}]}}, "/pods/all/imagePullSecrets/0"),
    ],
)
def test_a_wrong_field_of_a_pod_is_refused_by_the_schema(wrong: Manifest, sentence: str) -> None:
    with pytest.raises(HelmError) as caught:
        render(pods=wrong)
    assert sentence in str(caught.value)


@pytest.mark.slow
def test_a_private_ca_reaches_every_container_of_ours_and_every_training() -> None:
    manifests = render(EVERYTHING, privateCA={"configMap": "certificates", "key": "all.pem"})
    assert [problem for one in manifests for problem in validate(one)] == []
    file = f"{CERTIFICATES}/ca.crt"
    names = {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"}
    places = set()
    for one in manifests:
        for place, container in containers(one):
            if container["image"].startswith("cytoray") and not place.startswith("StatefulSet"):
                places.add(place)
                assert names <= {one["name"] for one in container["env"] if one.get("value") == file}, place
                assert {"name": "ca", "mountPath": CERTIFICATES, "readOnly": True} in container["volumeMounts"], place
    assert len(places) >= 8
    text = named(manifests, "ConfigMap/cytoray-platform")["data"]["platform.yaml"]
    job = build(make_submission(workers=2), Platform.model_validate(yaml.safe_load(text)), owner="ann")
    for pod in (job.head, job.worker or {}):
        assert {"name": "SSL_CERT_FILE", "value": file} in pod["containers"][0]["env"]
        assert {"name": "ca", "mountPath": CERTIFICATES, "readOnly": True} in pod["containers"][0]["volumeMounts"]
        [volume] = [one for one in pod["volumes"] if one["name"] == "ca"]
        assert volume["configMap"] == {"name": "certificates", "items": [{"key": "all.pem", "path": "ca.crt"}]}
