"""What a scale becomes on Kubernetes, and that KubeRay, Kueue and the definitions of their objects take it."""

from __future__ import annotations

import contextlib
import json
import re
import tomllib
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.errors import PlatformError, RequestError
from cytoray_services.jobs.kubernetes import connection
from cytoray_services.jobs.kubernetes.backend import KubernetesBackend, open_kubernetes, parse_platform
from cytoray_services.jobs.kubernetes.manifest import Manifest, build
from cytoray_services.jobs.kubernetes.quantities import quantity, total, written
from cytoray_services.jobs.platform import Gpus, Images, Nodes, Platform
from cytoray_services.jobs.scale import Scale, Toleration
from cytoray_services.jobs.submission import read_submission
from deploy.charts import containers, pod_templates, validate
from services.jobs.kubernetes.api_server import ApiServer
from services.jobs.kubernetes.kuberay import needs_crds, refused_by_operator
from services.jobs.kubernetes.lab import make_submission, set_platform

REPOSITORY = Path(__file__).resolve().parents[4]


def made(
    platform: Platform | None = None, *, data: tuple[str, ...] = (), within: tuple[str, ...] | None = None, **scale: Any
) -> Manifest:
    platform = platform or Platform(data_claims=("images",))
    submission = make_submission(data=data, **scale).model_copy(update={"within": within})
    return build(submission, platform, owner="ann", team="cells")


def spec_of(manifest: Manifest) -> dict[str, Any]:
    return dict(manifest.rayjob["spec"])


def group_of(manifest: Manifest) -> dict[str, Any]:
    return dict(spec_of(manifest)["rayClusterSpec"]["workerGroupSpecs"][0])


SCALES: list[dict[str, Any]] = [
    {},
    {"workers": 4, "workers_per_node": 2, "gpus_per_worker": 1},
    {"workers": 8, "min_workers": 2, "gpus_per_worker": 1, "spot": True, "accelerator": "NVIDIA-H100-80GB-HBM3"},
    {"workers": 3, "min_workers": 1, "queue": "short", "priority": "high"},
    {"workers": 1, "tolerations": [{"key": "lab", "operator": "Equal", "value": "cells"}]},
]
PLATFORMS = [
    Platform(data_claims=("images",)),
    Platform(
        images=Images(cpu="registry.lab/cytoray:1", pull_secrets=("registry",)),
        gpus=Gpus(node_selector={"pool": "gpus"}),
        spot=Nodes(node_selector={"pool": "spot"}, tolerations=(Toleration(key="spot"),)),
        environment={"MLFLOW_TRACKING_URI": "http://mlflow:5000"},
        secrets=("bucket",),
        data_claims=("images", "more.images"),
        queue="all",
        priority="low",
        deadline_seconds=86_400,
    ),
    Platform(submitter="SidecarMode", data_claims=("images",)),
    Platform(submitter="HTTPMode", home_claim=None, data_claims=("images",)),
]


@pytest.mark.slow
@needs_crds
@pytest.mark.parametrize(("scale", "platform"), [*product(SCALES, PLATFORMS)])
def test_kuberay_and_the_definitions_take_it(scale: dict[str, Any], platform: Platform) -> None:
    if platform.home_claim is None:
        scale = scale | {"workers_per_node": 8}

    data = ("pvc://images/a", "pvc://images/b", "s3://bucket/c")
    manifest = made(platform, data=data, within=data, **scale)

    assert [*validate(manifest.rayjob), *validate(manifest.config_map)] == []
    assert refused_by_operator(manifest.rayjob) is None
    for _, template in pod_templates(manifest.rayjob):
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        assert validate(pod | {"metadata": {"name": "x", **template["metadata"]}}) == []


@pytest.mark.parametrize(("scale", "platform"), [*product(SCALES, PLATFORMS[:3])])
def test_every_container_is_locked_down_and_limited(scale: dict[str, Any], platform: Platform) -> None:
    rayjob = made(platform, **scale).rayjob

    for _, template in pod_templates(rayjob):
        security = template["spec"]["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"]) == (True, 10001)
        assert template["spec"]["restartPolicy"] == "Never"
    for _, container in containers(rayjob):
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"]
        assert not security["allowPrivilegeEscalation"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        resources = container["resources"]
        assert resources["limits"]["memory"] == resources["requests"]["memory"]
        assert resources["limits"].keys() >= {"cpu", "memory"}


@pytest.mark.parametrize(
    ("scale", "replicas", "least", "most", "cpus", "gpus"),
    [
        ({"workers": 1}, 1, 1, 1, "1", "0"),
        ({"workers": 5, "workers_per_node": 2, "cpus_per_worker": 3}, 3, 3, 3, "6", "0"),
        ({"workers": 2, "workers_per_node": 8, "gpus_per_worker": 1}, 1, 1, 1, "2", "2"),
        ({"workers": 8, "min_workers": 3, "workers_per_node": 2, "gpus_per_worker": 1}, 2, 2, 4, "2", "2"),
    ],
)
def test_workers_become_nodes(
    scale: dict[str, Any], replicas: int, least: int, most: int, cpus: str, gpus: str
) -> None:
    group = group_of(made(**scale))

    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (replicas, least, most)
    assert (group["rayStartParams"]["num-cpus"], group["rayStartParams"]["num-gpus"]) == (cpus, gpus)
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["cpu"] == cpus
    assert limits.get("nvidia.com/gpu", "0") == gpus


def test_the_cluster_of_a_job_asks_for_a_token() -> None:
    assert spec_of(made())["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_no_worker_of_a_training_runs_on_the_head() -> None:
    head = spec_of(made(workers=2))["rayClusterSpec"]["headGroupSpec"]

    assert head["rayStartParams"]["num-cpus"] == "0"


def test_shared_memory_is_memory_of_the_pod_and_half_of_it_is_rays() -> None:
    group = group_of(made(workers=2, workers_per_node=2, memory_per_worker="6Gi", shared_memory="4Gi"))

    pod = group["template"]["spec"]
    volumes = {one["name"]: one for one in pod["volumes"]}
    assert volumes["shared-memory"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "4Gi"}
    assert {"name": "shared-memory", "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]  # noqa: S108
    assert pod["containers"][0]["resources"]["limits"]["memory"] == "16Gi"
    assert group["rayStartParams"]["object-store-memory"] == str(2 * 2**30)


def test_scratch_is_asked_for_on_the_nodes_disk() -> None:
    pod = group_of(made(scratch="200Gi"))["template"]["spec"]

    assert {"name": "scratch", "emptyDir": {"sizeLimit": "200Gi"}} in pod["volumes"]
    assert pod["containers"][0]["resources"]["requests"]["ephemeral-storage"] == "200Gi"


def test_an_elastic_job_is_autoscaled_and_a_fixed_one_is_not() -> None:
    elastic, fixed = (spec_of(made(workers=4, min_workers=least))["rayClusterSpec"] for least in (2, None))

    assert elastic["enableInTreeAutoscaling"]
    assert elastic["autoscalerOptions"]["version"] == "v2"
    # The autoscaler asks the API server for pods; the training's own code beside it cannot.
    pod = elastic["headGroupSpec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    [access] = [one["name"] for one in pod["volumes"] if "projected" in one]
    assert [one for one in elastic["autoscalerOptions"]["volumeMounts"] if one["name"] == access] == [
        {"name": access, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True}
    ]
    assert access not in {one["name"] for one in pod["containers"][0]["volumeMounts"]}
    assert not fixed["enableInTreeAutoscaling"]
    assert "autoscalerOptions" not in fixed
    assert not fixed["headGroupSpec"]["template"]["spec"]["automountServiceAccountToken"]
    assert not [one for one in fixed["headGroupSpec"]["template"]["spec"]["volumes"] if "projected" in one]


def test_a_job_in_a_queue_waits_for_kueue_and_has_a_fixed_size() -> None:
    manifest = made(workers=4, min_workers=2, queue="short")

    spec = spec_of(manifest)
    assert manifest.rayjob["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "short"
    assert spec["suspend"]
    assert spec["shutdownAfterJobFinishes"]
    assert not spec["rayClusterSpec"]["enableInTreeAutoscaling"]
    assert group_of(manifest)["replicas"] == 4


def test_the_recipes_queue_and_priority_count_before_the_platforms() -> None:
    platform = Platform(queue="all", priority="low")

    manifest = made(platform, queue="short", priority="high")

    assert manifest.rayjob["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "short"
    assert group_of(manifest)["template"]["spec"]["priorityClassName"] == "high"
    assert "suspend" not in spec_of(made(Platform()))


def test_workers_on_spot_nodes_and_the_head_not() -> None:
    manifest = made(PLATFORMS[1], workers=4, min_workers=1, gpus_per_worker=1, spot=True, accelerator="L4")

    worker = group_of(manifest)["template"]["spec"]
    assert worker["nodeSelector"] == {"pool": "spot", "nvidia.com/gpu.product": "L4"}
    assert [one["key"] for one in worker["tolerations"]] == ["nvidia.com/gpu", "spot"]
    assert "nodeSelector" not in manifest.head
    assert "tolerations" not in manifest.head


@pytest.mark.parametrize(
    ("within", "folders"),
    [
        (None, [None]),
        (("pvc://images/train", "pvc://images/more", "s3://bucket/x", "pvc://images/train"), ["more", "train"]),
        (("pvc://images/a", "pvc://images/a/b", "pvc://images/ab"), ["a", "ab"]),
        (("pvc://images/a b/c",), ["a b/c"]),
        (("pvc://images/a", "pvc://images"), [None]),
        (("s3://bucket/x",), []),
    ],
)
def test_of_a_claim_a_job_sees_what_it_may_read_on_all_nodes_and_nothing_beside(
    within: tuple[str, ...] | None, folders: list[str | None]
) -> None:
    manifest = made(data=("pvc://images/a/train", "pvc://images/a/more", "s3://bucket/x"), within=within)

    assert manifest.worker is not None
    for pod in (manifest.head, manifest.worker):
        mounts = [one for one in pod["containers"][0]["volumeMounts"] if one["mountPath"].startswith("/data")]
        assert mounts == [
            {"name": "data-images", "mountPath": "/data/images" + (f"/{one}" if one else ""), "readOnly": True}
            | ({"subPath": one} if one else {})
            for one in folders
        ]
        assert [one for one in pod["volumes"] if one["name"] == "data-images"] == [
            {"name": "data-images", "persistentVolumeClaim": {"claimName": "images", "readOnly": True}}
        ][: len(folders)]


def test_secrets_are_named_and_never_written() -> None:
    manifest = made(Platform(secrets=("bucket",)))

    assert manifest.head["containers"][0]["envFrom"] == [{"secretRef": {"name": "bucket"}}]


def test_the_platforms_environment_counts_before_the_images() -> None:
    container = made(Platform(environment={"CYTORAY_CACHE": "/scratch/other"})).head["containers"][0]

    assert [one["value"] for one in container["env"] if one["name"] == "CYTORAY_CACHE"] == ["/scratch/other"]


def test_without_a_shared_home_one_pod_does_all() -> None:
    platform = Platform(home_claim=None)

    cluster = spec_of(made(platform, workers=2, workers_per_node=2, cpus_per_worker=3))["rayClusterSpec"]

    assert "workerGroupSpecs" not in cluster
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "6"
    limits = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert (limits["cpu"], limits["memory"]) == ("8", "27Gi")
    with pytest.raises(RequestError, match="workers on one node"):
        made(platform, workers=2)


def test_everything_of_a_job_carries_its_labels() -> None:
    manifest = made(workers=2)
    labels = {
        "app.kubernetes.io/part-of": "cytoray",
        "app.kubernetes.io/component": "training",
        "cytoray.io/job": "nuclei-x7k2q",
        "cytoray.io/model": "nuclei",
        "cytoray.io/team": "cells",
    }

    places = [manifest.rayjob, manifest.config_map, *[template for _, template in pod_templates(manifest.rayjob)]]
    assert all(one["metadata"]["labels"] == labels for one in places)
    annotations = manifest.rayjob["metadata"]["annotations"]
    assert (annotations["cytoray.io/owner"], annotations["cytoray.io/command"]) == ("ann", "train")
    assert Scale.model_validate_json(annotations["cytoray.io/scale"]).workers == 2


@pytest.mark.parametrize("team", ["", "-a", "a b", "x" * 64])
def test_a_team_that_is_no_label_is_refused(team: str) -> None:
    with pytest.raises(RequestError, match="expected a team that is a valid label"):
        build(make_submission(), Platform(), owner="ann", team=team)


def test_a_recipe_that_no_config_map_takes_is_refused() -> None:
    submission = make_submission().model_copy(update={"recipe": "x" * 1_100_000})

    with pytest.raises(RequestError, match="too large for a ConfigMap: expected at most 1020 KiB, got 1074"):
        build(submission, Platform(), owner="ann")


def test_ray_is_the_version_that_the_images_have() -> None:
    pinned = re.search(r"^ray==(.+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)

    assert pinned is not None
    assert spec_of(made())["rayClusterSpec"]["rayVersion"] == pinned[1].strip()


def test_images_are_of_this_version() -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]

    assert (Images().cpu, Images().gpu) == (f"cytoray:{version}-cpu", f"cytoray:{version}-cuda")


@pytest.mark.slow
@needs_crds
def test_a_dry_run_needs_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    recipe = (REPOSITORY / "training/recipes/nuclei.yaml").read_text()

    text = open_kubernetes("").manifest(read_submission(recipe, ["scale.workers=2"]), owner="ann")

    rayjob, config_map = yaml.safe_load_all(text)
    assert (rayjob["kind"], config_map["kind"]) == ("RayJob", "ConfigMap")
    assert rayjob["metadata"]["namespace"] == "default"
    assert [*validate(rayjob), *validate(config_map)] == []
    said = capsys.readouterr().err
    assert "so defaults are shown: expected a kubeconfig" in said
    assert "is a path, which the nodes of a cluster can read only if" in said


def test_a_dry_run_shows_what_the_clusters_operator_has_decided(place: KubernetesBackend, server: ApiServer) -> None:
    set_platform(server, "images: {cpu: 'registry.lab/cytoray:7'}\nkeep_seconds: 60\n")

    rayjob, _ = yaml.safe_load_all(place.manifest(make_submission(), owner="ann"))

    assert rayjob["spec"]["ttlSecondsAfterFinished"] == 60
    assert "registry.lab/cytoray:7" in json.dumps(rayjob)
    assert server.objects.names("rayjobs", "lab") == []


@pytest.mark.parametrize(
    ("rest", "context", "namespace"),
    [
        ("", "lab", "lab"),
        ("other", "other", "default"),
        ("other/cells", "other", "cells"),
        ("/cells", "lab", "cells"),
        ("arn:cluster/lab", "arn:cluster/lab", "deep"),
        ("arn:cluster/lab/cells", "arn:cluster/lab", "cells"),
    ],
)
def test_contexts_and_namespaces(kubeconfig: Path, rest: str, context: str, namespace: str) -> None:
    place = open_kubernetes(rest)

    assert (place.context, place.namespace, place.name) == (context, namespace, f"kubernetes:{context}/{namespace}")


@pytest.mark.parametrize(("rest", "namespace"), [("", "pods-own"), ("/cells", "cells")])
def test_in_a_pod_its_service_account_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: str, namespace: str
) -> None:
    for name, text in (("token", "abc"), ("ca.crt", "-----BEGIN CERTIFICATE-----"), ("namespace", "pods-own")):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(connection, "_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")

    place = open_kubernetes(rest)

    assert (place.namespace, place.name) == (namespace, "kubernetes")
    with pytest.raises(PlatformError, match="expected a kubeconfig"):
        open_kubernetes("lab")


@pytest.mark.parametrize("rest", ["lab/UPPER", "lab/a_b", "lab/a b"])
def test_names_that_no_namespace_has(kubeconfig: Path, rest: str) -> None:
    with pytest.raises(RequestError, match="expected a namespace of lower-case letters"):
        open_kubernetes(rest)


@given(st.text(max_size=40))
def test_a_platform_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(PlatformError):
        assert isinstance(parse_platform(text), Platform)


@given(st.integers(1, 2**45))
def test_amounts_are_written_as_they_are_read(amount: int) -> None:
    assert quantity(written(Decimal(amount))) == amount
    assert quantity(total(str(amount), "1Ki")) == amount + 1024


def test_the_examples_are_what_would_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "deploy" / "ray"))
    from render import FOLDER, render  # type: ignore[import-not-found]

    for name, text in render().items():
        assert (FOLDER / name).read_text() == text, f"run deploy/ray/render.py: {name} is not what it would write"


@pytest.mark.slow
@needs_crds
@pytest.mark.parametrize("name", ["rayjob.yaml", "rayjob-elastic-gpu.yaml", "raycluster.yaml"])
def test_the_examples_are_valid(name: str) -> None:
    for one in yaml.safe_load_all((REPOSITORY / "deploy" / "ray" / name).read_text()):
        assert validate(one) == []
