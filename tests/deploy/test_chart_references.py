"""What refers to what within the chart: selectors, ports, network policies, volumes, secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
import yaml

from cytoray_services.jobs.kubernetes.manifest import PART_OF
from deploy.charts import CASES, CHART, EVERYTHING, Manifest, containers, named, pod_templates, render, title, values

RELEASE = "cytoray"


@pytest.fixture(params=CASES, scope="module")
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return render(CASES[request.param])


def labels_of(manifest: Manifest, place: str, template: Manifest) -> dict[str, str]:
    """Return the labels of pods, those of KubeRay among them."""
    labels = dict(template["metadata"]["labels"])
    if manifest["kind"] == "RayService":
        group = place.rpartition(" ")[2]
        labels |= {
            "ray.io/is-ray-node": "yes",
            "ray.io/node-type": "head" if group == "head" else "worker",
            "ray.io/group": "headgroup" if group == "head" else group,
        }
    return labels


def selected(manifests: list[Manifest], wanted: dict[str, str]) -> list[Manifest]:
    return [
        template
        for one in manifests
        for place, template in pod_templates(one)
        if wanted.items() <= labels_of(one, place, template).items()
    ]


def ports_of(templates: list[Manifest]) -> dict[str | int, int]:
    ports = [
        port for one in templates for container in one["spec"]["containers"] for port in container.get("ports", ())
    ]
    return {port[key]: port["containerPort"] for port in ports for key in ("name", "containerPort")}


def test_every_service_selects_pods_with_its_ports(manifests: list[Manifest]) -> None:
    services = [one for one in manifests if one["kind"] == "Service"]
    assert len(services) >= 2
    for one in services:
        templates = selected(manifests, one["spec"]["selector"])
        assert templates, title(one)
        for port in one["spec"]["ports"]:
            assert all(port["targetPort"] in ports_of([template]) for template in templates), title(one)
            assert ports_of(templates)[port["targetPort"]] == port["port"], title(one)


def test_every_port_that_a_network_policy_lets_in_is_listened_on(manifests: list[Manifest]) -> None:
    policies = [one for one in manifests if one["kind"] == "NetworkPolicy"]
    assert policies
    for one in policies:
        wanted = one["spec"]["podSelector"].get("matchLabels", {})
        templates = selected(manifests, wanted)
        # Training jobs are no pods of the release: 8080 has the metrics of Ray, 8265 where the operator asks.
        training = wanted.get("app.kubernetes.io/component") == "training" or namespace_of(one) != RELEASE
        assert templates or training, title(one)
        for rule in one["spec"].get("ingress", []):
            for port in rule.get("ports", []):
                assert port["port"] in ports_of(templates) or (training and port["port"] in (8080, 8265)), title(one)


def test_what_may_leave_a_pod_may_enter_the_other(manifests: list[Manifest]) -> None:
    policies = [one for one in manifests if one["kind"] == "NetworkPolicy"]
    ways = 0
    for policy in policies:
        # Those of a namespace for training jobs are for all that runs there.
        leaving = policy["spec"]["podSelector"].get("matchLabels") or PART_OF
        for rule in policy["spec"].get("egress", []):
            for peer in rule.get("to", []):
                wanted = peer.get("podSelector", {}).get("matchLabels")
                if wanted is None or "ports" not in rule:
                    continue
                for port in rule["ports"]:
                    ways += 1
                    doors = [
                        inner
                        for one in policies
                        if namespace_of(one) == namespace_of(policy, peer)
                        and one["spec"]["podSelector"].get("matchLabels", {}).items() <= wanted.items()
                        for inner in one["spec"].get("ingress", [])
                        if port in inner.get("ports", [])
                        and any(
                            namespace_of(one, source) == namespace_of(policy)
                            and source["podSelector"].get("matchLabels", {}).items() <= leaving.items()
                            for source in inner["from"]
                            if "podSelector" in source
                        )
                    ]
                    assert doors, f"no policy lets {leaving} of {title(policy)} in at {wanted} {port}"
    assert ways or not [one for one in manifests if one["kind"] == "Service" and title(one).endswith("mlflow")]


def namespace_of(manifest: Manifest, peer: Manifest | None = None) -> str:
    """Return the namespace of an object, or of a peer that its policy names."""
    labels = (peer or {}).get("namespaceSelector", {}).get("matchLabels", {})
    named: str = labels.get("kubernetes.io/metadata.name") or manifest["metadata"].get("namespace", RELEASE)
    return named


def test_everything_of_the_release_is_closed_unless_it_is_opened(manifests: list[Manifest]) -> None:
    deny = named(manifests, "NetworkPolicy/cytoray-deny")["spec"]
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & deny.keys()
    everybody = [template for one in manifests for _, template in pod_templates(one)]
    assert selected(manifests, deny["podSelector"]["matchLabels"]) == everybody


def test_gateways_are_open_to_the_clients_that_are_named_and_no_one_else() -> None:
    spec = named(render("production"), "NetworkPolicy/cytoray-gateway")["spec"]
    [rule] = spec["ingress"]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}]
    assert [port["port"] for port in rule["ports"]] == [8000, 9000]


def test_every_monitor_finds_the_port_that_it_reads() -> None:
    manifests = render(EVERYTHING)
    for one in manifests:
        if one["kind"] == "PodMonitor":
            templates = selected(manifests, one["spec"]["selector"]["matchLabels"])
            assert templates, title(one)
            for endpoint in one["spec"]["podMetricsEndpoints"]:
                assert all(endpoint["port"] in ports_of([template]) for template in templates), title(one)
        if one["kind"] == "ServiceMonitor":
            wanted = one["spec"]["selector"]["matchLabels"]
            services = [
                service
                for service in manifests
                if service["kind"] == "Service" and wanted.items() <= service["metadata"]["labels"].items()
            ]
            assert services, title(one)
            names = {port["name"] for service in services for port in service["spec"]["ports"]}
            assert {endpoint["port"] for endpoint in one["spec"]["endpoints"]} <= names


def test_an_ingress_leads_to_services_that_there_are() -> None:
    for case in ("production", "everything"):
        manifests = render(CASES[case])
        services = {one["metadata"]["name"]: one for one in manifests if one["kind"] == "Service"}
        ingress = named(manifests, "Ingress/cytoray")["spec"]
        assert ingress["tls"][0]["hosts"] == sorted(rule["host"] for rule in ingress["rules"])
        for rule in ingress["rules"]:
            backend = rule["http"]["paths"][0]["backend"]["service"]
            if backend["name"] == "cytoray-serve-svc":  # made by KubeRay, named after the RayService
                assert (named(manifests, "RayService/cytoray")["metadata"]["name"], backend["port"]["number"]) == (
                    "cytoray",
                    8000,
                )
            else:
                ports = [port["port"] for port in services[backend["name"]]["spec"]["ports"]]
                assert backend["port"]["number"] in ports


def test_everything_that_is_referred_to_is_made_here_or_named_by_a_value(
    manifests: list[Manifest], request: pytest.FixtureRequest
) -> None:
    made = {title(one) for one in manifests}
    made |= {
        f"PersistentVolumeClaim/{claim['metadata']['name']}"
        for one in manifests
        if one["kind"] == "StatefulSet"
        for claim in one["spec"]["volumeClaimTemplates"]
    }
    given = values(CASES[request.node.callspec.params["manifests"]])
    text = json.dumps([yaml.safe_load((CHART / "values.yaml").read_text()), given])
    for wanted in references(manifests):
        assert wanted in made or f'"{wanted.partition("/")[2]}"' in text, wanted


def references(manifests: list[Manifest]) -> Iterator[str]:
    for one in manifests:
        for _, template in pod_templates(one):
            spec = template["spec"]
            for volume in spec["volumes"]:
                if "configMap" in volume:
                    yield f"ConfigMap/{volume['configMap']['name']}"
                if "secret" in volume:
                    yield f"Secret/{volume['secret']['secretName']}"
                if "persistentVolumeClaim" in volume:
                    yield f"PersistentVolumeClaim/{volume['persistentVolumeClaim']['claimName']}"
            if "serviceAccountName" in spec:
                yield f"ServiceAccount/{spec['serviceAccountName']}"
            if "priorityClassName" in spec:
                yield f"PriorityClass/{spec['priorityClassName']}"
            for secret in spec.get("imagePullSecrets", []):
                yield f"Secret/{secret['name']}"
        for _, container in containers(one):
            for variable in container.get("env", []):
                if "valueFrom" in variable:
                    yield f"Secret/{variable['valueFrom']['secretKeyRef']['name']}"
            for source in container.get("envFrom", []):
                yield f"Secret/{source['secretRef']['name']}"


def test_names_are_ones_that_kubernetes_takes(manifests: list[Manifest]) -> None:
    label = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    for one in manifests:
        assert label.match(one["metadata"]["name"]), title(one)
        for place, template in pod_templates(one):
            assert all(label.match(volume["name"]) for volume in template["spec"]["volumes"]), place
            for container in template["spec"]["containers"]:
                names = [port["name"] for port in container.get("ports", ())]
                assert len(set(names)) == len(names), place
                # A port's name has at most fifteen characters, and a letter.
                assert all(re.match(r"^(?=.*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?$", name) for name in names), place


def test_every_mount_has_its_volume(manifests: list[Manifest]) -> None:
    for one in manifests:
        claims = (
            {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])}
            if "spec" in one
            else set()
        )
        for place, template in pod_templates(one):
            volumes = {volume["name"] for volume in template["spec"]["volumes"]} | claims
            for container in (*template["spec"].get("initContainers", ()), *template["spec"]["containers"]):
                assert {mount["name"] for mount in container["volumeMounts"]} <= volumes, place
