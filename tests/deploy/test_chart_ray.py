"""The chart's Ray cluster as KubeRay and Ray's own autoscaler read it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from cytoray_services.jobs.kubernetes.quantities import quantity
from deploy.charts import CASES, Manifest, render
from deploy.kuberay_rules import UPGRADES, service_problems


def service(source: Any = None, **changes: Any) -> Manifest:
    found = [one for one in render(source, **changes) if one["kind"] == "RayService"]
    assert len(found) == 1
    return found[0]


def groups(manifest: Manifest) -> dict[str, Manifest]:
    return {one["groupName"]: one for one in manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"]}


@pytest.mark.parametrize("case", CASES)
def test_kuberay_would_run_it(case: str) -> None:
    assert service_problems(service(CASES[case])) == []


def test_kuberay_would_run_incremental_upgrades_and_token_authentication() -> None:
    upgrade = {"type": "NewClusterWithIncrementalUpgrade", "gatewayClass": "istio"}
    manifest = service(serving={"upgrade": upgrade, "authentication": "token"})
    assert service_problems(manifest) == []
    assert manifest["spec"]["upgradeStrategy"]["clusterUpgradeOptions"]["gatewayClassName"] == "istio"
    assert manifest["spec"]["rayClusterConfig"]["authOptions"] == {"mode": "token"}


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (("metadata", "name"), "x" * 48, "too long"),
        (("spec", "upgradeStrategy", "type"), "Rolling", "none of"),
        (("spec", "rayClusterConfig", "headGroupSpec", "rayStartParams", "redis-password"), "x", "login of Redis"),
        (("spec", "rayClusterConfig", "workerGroupSpecs", 0, "rayStartParams", "num-cpus"), "1", "given twice"),
        (("spec", "rayClusterConfig", "workerGroupSpecs", 1, "minReplicas"), 99, "more than maxReplicas"),
        (("spec", "rayClusterConfig", "autoscalerOptions", "version"), "v1", "needs autoscaler v2"),
        (("spec", "rayClusterConfig", "headGroupSpec", "template", "spec", "restartPolicy"), "Always", "restartPolicy"),
        (("spec", "rayClusterConfig", "gcsFaultToleranceOptions", "storage"), {}, "not with Redis"),
    ],
)
def test_the_rules_of_kuberay_find_what_breaks_them(place: tuple[Any, ...], value: Any, told: str) -> None:
    manifest = service()
    at: Any = manifest
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    assert any(told in problem for problem in service_problems(manifest))


@pytest.mark.parametrize("case", CASES)
def test_the_gpu_group_starts_at_zero(case: str) -> None:
    for name in ("cpu", "gpu"):
        group = groups(service(CASES[case])).get(name)
        if group is not None:
            assert group["replicas"] == group["minReplicas"] == 0
            assert group["maxReplicas"] > 0


def test_a_laptop_has_no_gpu_group() -> None:
    assert groups(service("laptop")).keys() == {"gateway", "cpu"}


def test_the_gpu_group_runs_the_cuda_image_on_nodes_with_gpus() -> None:
    gpu = {"resource": "nvidia.com/gpu", "nodeSelector": {"pool": "gpus"}, "runtimeClass": "nvidia"}
    own = {"gpus": 2, "nodeSelector": {"disk": "fast"}, "tolerations": [{"key": "serving", "operator": "Exists"}]}
    spec = groups(service(gpu=gpu, serving={"gpu": own}))["gpu"]["template"]["spec"]
    container = spec["containers"][0]
    assert container["image"] == "cytoray:0.1.0-cuda"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert container["resources"]["requests"]["nvidia.com/gpu"] == "2"
    assert spec["nodeSelector"] == {"pool": "gpus", "disk": "fast"}
    assert {one["key"] for one in spec["tolerations"]} == {"nvidia.com/gpu", "serving"}
    assert spec["runtimeClassName"] == "nvidia"


@pytest.mark.parametrize("case", CASES)
def test_rays_autoscaler_reads_the_groups_as_they_are_meant(case: str) -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    cluster = service(CASES[case])["spec"]["rayClusterConfig"]
    read = _derive_autoscaling_config_from_ray_cr({"metadata": {"name": "a", "namespace": "b"}, "spec": cluster})
    kinds = read["available_node_types"]
    assert kinds["headgroup"]["resources"]["CPU"] == 0
    # One gateway for each pod, and no core for a replica.
    gateways = kinds["gateway"]
    assert gateways["resources"]["gateway"] == 1
    assert gateways["resources"]["CPU"] == 0
    assert gateways["min_workers"] == gateways["max_workers"] >= 1
    assert kinds["cpu"]["resources"]["CPU"] >= 1
    assert "GPU" not in kinds["cpu"]["resources"]
    assert kinds["cpu"]["idle_timeout_s"] > 0
    if "gpu" in kinds:
        assert kinds["gpu"]["resources"]["GPU"] == 1
        assert kinds["gpu"]["min_workers"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("upgrade", UPGRADES)
def test_every_way_of_upgrading_that_kuberay_knows_can_be_chosen(upgrade: str) -> None:
    given = {"type": upgrade, "gatewayClass": "istio"}
    assert service(serving={"upgrade": given})["spec"]["upgradeStrategy"]["type"] == upgrade


def test_the_head_remembers_in_redis_and_its_password_is_only_referred_to() -> None:
    options = service()["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    assert options["redisAddress"] == "cytoray-redis:6379"
    assert options["redisPassword"] == {"valueFrom": {"secretKeyRef": {"name": "cytoray-redis", "key": "password"}}}
    outside = service("production")["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    assert outside["redisAddress"] == "rediss://redis.example.org:6380"
    assert outside["redisPassword"]["valueFrom"]["secretKeyRef"]["name"] == "cytoray-redis-login"


def test_another_configuration_is_another_cluster_and_another_chart_version_is_not() -> None:
    def cluster(**changes: Any) -> Manifest:
        spec: Manifest = service(**changes)["spec"]["rayClusterConfig"]
        return spec

    same, changed = cluster(), cluster(serving={"config": {"allowed": {"buckets": ["plates"]}}})
    assert same == cluster()
    assert same["headGroupSpec"]["template"]["metadata"] != changed["headGroupSpec"]["template"]["metadata"]
    # KubeRay compares the templates of pods: labels of the chart's version would make every upgrade a new cluster.
    assert "helm.sh/chart" not in yaml.safe_dump(same)
    assert "app.kubernetes.io/version" not in yaml.safe_dump(same)


def test_ray_has_what_it_writes_to_and_shared_memory_for_its_objects() -> None:
    manifest = service(dataClaims=["plates"])
    cluster = manifest["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        spec = group["template"]["spec"]
        container = spec["containers"][0]
        mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
        volumes = {one["name"]: one for one in spec["volumes"]}
        shared = volumes[mounts["/dev/shm"]]["emptyDir"]  # noqa: S108 - a path of the container
        # KubeRay would add a volume as large; given here, it is plain to see.
        assert shared["medium"] == "Memory"
        assert quantity(shared["sizeLimit"]) == quantity(container["resources"]["limits"]["memory"]) / 2
        assert volumes[mounts["/tmp"]] == {"name": "tmp", "emptyDir": {"sizeLimit": "20Gi"}}  # noqa: S108
        assert "emptyDir" in volumes[mounts["/scratch"]]
        assert volumes[mounts["/var/lib/cytoray"]]["persistentVolumeClaim"]["claimName"] == "cytoray-home"
        assert volumes[mounts["/data/plates"]]["persistentVolumeClaim"]["claimName"] == "plates"
    # The autoscaler writes beside the head, whose folder /tmp/ray KubeRay shares with it.
    assert cluster["autoscalerOptions"]["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108


@pytest.mark.parametrize("case", CASES)
def test_ray_reports_itself_at_the_port_that_is_read(case: str) -> None:
    cluster = service(CASES[case])["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        ports = {one["name"]: one["containerPort"] for one in group["template"]["spec"]["containers"][0]["ports"]}
        assert group["rayStartParams"]["metrics-export-port"] == str(ports["metrics"])


def test_gateways_are_spread_over_nodes_and_zones() -> None:
    gateway = groups(service("production"))["gateway"]["template"]["spec"]
    keys = {one["topologyKey"]: one for one in gateway["topologySpreadConstraints"]}
    assert keys.keys() == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
    for one in keys.values():
        assert one["labelSelector"]["matchLabels"] == {"ray.io/group": "gateway"}
        assert one["matchLabelKeys"] == ["ray.io/cluster"]


def test_the_head_answers_no_requests() -> None:
    assert service()["spec"]["excludeHeadPodFromServeSvc"] is True
    # KubeRay takes the port of its service from the head's container.
    head = service()["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert {"name": "serve", "containerPort": 8000, "protocol": "TCP"} in head["ports"]
