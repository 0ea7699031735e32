"""What the chart says, and what the code and the libraries make of it."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from cytoray_services.jobs.kubernetes.manifest import CERTIFICATES
from deploy.charts import CASES, CHART, EVERYTHING, REPOSITORY, Manifest, containers, named, render


@pytest.fixture(params=CASES, scope="module")
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return render(CASES[request.param])


def file_of(manifests: list[Manifest], config_map: str, key: str) -> Any:
    return yaml.safe_load(named(manifests, f"ConfigMap/{config_map}")["data"][key])


# ----------------------------------------------------------------------------------------------------------- versions


def test_ray_has_the_version_of_the_constraints(manifests: list[Manifest]) -> None:
    pinned = re.search(r"^ray==(.+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]["cytoray.io/ray-version"] == pinned[1]
    assert named(manifests, "RayService/cytoray")["spec"]["rayClusterConfig"]["rayVersion"] == pinned[1]


def test_chart_and_images_have_the_version_of_the_package() -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)
    images = yaml.safe_load((CHART / "values.yaml").read_text())["image"]
    assert (images["cpu"], images["cuda"]) == (f"cytoray:{version}-cpu", f"cytoray:{version}-cuda")


def test_kuberays_operator_is_a_dependency_that_can_be_left_out() -> None:
    [operator] = yaml.safe_load((CHART / "Chart.yaml").read_text())["dependencies"]
    assert (operator["name"], operator["version"]) == ("kuberay-operator", "1.7.0")
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for key in operator["condition"].split("."):
        values = values[key]
    assert values is False


# --------------------------------------------------------------------------------------------------------------- code


def test_rays_containers_set_the_switches_that_the_service_expects(manifests: list[Manifest]) -> None:
    from cytoray_serving.cluster import ENVIRONMENT

    for place, container in containers(named(manifests, "RayService/cytoray")):
        variables = {one["name"]: one.get("value", "") for one in container["env"]}
        assert variables.items() >= ENVIRONMENT.items(), place
        assert variables["CYTORAY_HOME"] == "/var/lib/cytoray"
        assert variables["CYTORAY_CACHE"] == "/scratch/cache"
        assert variables["HOME"] == "/tmp"  # noqa: S108 - a path of the container


def test_serve_takes_its_configuration_and_finds_what_it_names(manifests: list[Manifest]) -> None:
    from ray.serve.schema import ServeDeploySchema

    from cytoray_serving.cluster import Arguments

    service = named(manifests, "RayService/cytoray")
    schema = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    [application] = schema.applications
    assert application.name == "cytoray"
    assert callable(found(application.import_path))
    for servicer in schema.grpc_options.grpc_servicer_functions:
        assert callable(found(servicer))
    mounts = {one["mountPath"] for _, one in containers(service) for one in one["volumeMounts"]}
    assert str(Arguments.model_validate(application.args).config) in mounts


def found(path: str) -> Any:
    module, _, name = path.replace(":", ".").rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_the_service_reads_its_configuration(manifests: list[Manifest]) -> None:
    from cytoray_serving.service.config import ServiceConfig

    config = ServiceConfig.model_validate(file_of(manifests, "cytoray-service", "service.yaml"))
    groups = {
        one["groupName"]: one
        for one in named(manifests, "RayService/cytoray")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    }
    gateway = groups["gateway"]
    assert config.gateways == gateway["replicas"]
    assert config.gateway_nodes in gateway["resources"]
    ports = {one["name"]: one["containerPort"] for one in gateway["template"]["spec"]["containers"][0]["ports"]}
    assert config.metrics_port == ports["cytoray-metrics"]
    assert str(config.tokens) == "/etc/cytoray/tokens/tokens.json"
    assert not config.insecure_local
    assert config.jobs.url == "http://cytoray-jobs:8080"
    assert (config.viewer.min_replicas, config.viewer.cpus) == (0, 1)
    # A replica fits on a node of the group that it would start, or it would wait for ever.
    assert config.shared is not None
    for resources in (config.shared.resources, config.jobs.resources, *(one.resources for one in config.models)):
        offers = groups["gpu" if resources.gpus else "cpu"]["resources"]
        assert resources.cpus <= float(offers["CPU"])
        assert (resources.gpus or 0.0) <= float(offers.get("GPU", 0))


def test_the_jobs_service_reads_its_configuration(manifests: list[Manifest]) -> None:
    from cytoray_services.jobs.service.config import JobsServiceConfig

    config = JobsServiceConfig.model_validate(file_of(manifests, "cytoray-jobs", "jobs.yaml"))
    assert config.place == "kubernetes:/cytoray"
    mounts = [
        one["mountPath"]
        for _, one in containers(named(manifests, "Deployment/cytoray-jobs"))
        for one in one["volumeMounts"]
    ]
    assert str(config.tokens).startswith("/etc/cytoray/tokens/")
    assert str(config.audit).startswith("/var/lib/cytoray/")
    assert {"/etc/cytoray/tokens", "/var/lib/cytoray", "/etc/cytoray/jobs.yaml"} <= set(mounts)


def test_trainings_read_the_platform(manifests: list[Manifest]) -> None:
    from cytoray_services.jobs.platform import CONFIG_MAP, KEY, Platform

    platform = Platform.model_validate(file_of(manifests, CONFIG_MAP, KEY))
    assert platform.images.cpu.rpartition("/")[2] == "cytoray:0.1.0-cpu"
    assert platform.images.gpu.rpartition("/")[2] == "cytoray:0.1.0-cuda"
    claims = {
        (one["metadata"].get("namespace", "cytoray"), one["metadata"]["name"])
        for one in manifests
        if one["kind"] == "PersistentVolumeClaim"
    }
    assert (platform.namespace or "cytoray", platform.home_claim) in claims
    server = "http://cytoray-mlflow:5000" if platform.namespace is None else "http://cytoray-mlflow.cytoray:5000"
    assert platform.environment["MLFLOW_TRACKING_URI"] == server
    assert platform.gpus.tolerations[0].key == "nvidia.com/gpu"
    accounts = {
        (one["metadata"].get("namespace", "cytoray"), one["metadata"]["name"])
        for one in manifests
        if one["kind"] == "ServiceAccount"
    }
    assert (platform.namespace or "cytoray", platform.service_account) in accounts
    bound = [one for one in manifests if one["kind"] == "RoleBinding" for one in one["subjects"]]
    assert platform.service_account not in {one["name"] for one in bound}


def test_every_field_of_the_platform_can_be_set() -> None:
    from cytoray_services.jobs.platform import Platform

    values = {
        "image": {"cpu": "a:1", "cuda": "b:1", "pullPolicy": "Never", "pullSecrets": ["registry"]},
        "gpu": {"resource": "amd.com/gpu", "productLabel": "product", "nodeSelector": {"a": "b"}, "tolerations": []},
        "home": {"existingClaim": "shared"},
        "dataClaims": ["plates"],
        "mlflow": {"url": "https://registry.example.org"},
        "objectStore": {"external": True, "secret": "s3-login"},
        "platform": {
            "queue": "trainings",
            "priority": "low",
            "submitter": "SidecarMode",
            "keepSeconds": 5,
            "keepDays": 6,
            "autoscaled": False,
            "deadlineSeconds": 7,
            "headCpus": "3",
            "headMemory": "9Gi",
            "environment": {"MLFLOW_HTTP_REQUEST_TIMEOUT": "60"},
            "secrets": ["more"],
            "spot": {"nodeSelector": {"c": "d"}, "tolerations": [{"key": "spot", "operator": "Exists"}]},
        },
        "privateCA": {"configMap": "certificates", "key": "all.pem"},
    }
    written = file_of(render(values), "cytoray-platform", "platform.yaml")
    assert written.keys() == Platform.model_fields.keys()
    platform = Platform.model_validate(written)
    assert (platform.queue, platform.priority, platform.submitter) == ("trainings", "low", "SidecarMode")
    assert (platform.keep_seconds, platform.keep_days, platform.deadline_seconds) == (5, 6, 7)
    assert (platform.head_cpus, platform.head_memory, platform.autoscaled) == ("3", "9Gi", False)
    assert platform.secrets == ("s3-login", "more")
    assert platform.home_claim == "shared"
    assert platform.private_ca is not None
    assert (platform.private_ca.config_map, platform.private_ca.key) == ("certificates", "all.pem")
    assert platform.environment["SSL_CERT_FILE"] == f"{CERTIFICATES}/ca.crt"
    assert platform.data_claims == ("plates",)
    assert platform.environment["MLFLOW_TRACKING_URI"] == "https://registry.example.org"
    assert platform.environment["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "60"
    assert platform.spot.tolerations[0].key == "spot"
    assert platform.gpus.tolerations == ()
    assert platform.images.pull_secrets == ("registry",)


def commands(manifests: list[Manifest]) -> Iterator[list[str]]:
    for one in manifests:
        for _, container in containers(one):
            if "/cytoray:" in f"/{container['image']}" and "command" in container:
                yield container["command"]


@pytest.mark.slow
def test_every_command_of_a_container_exists(manifests: list[Manifest]) -> None:
    seen = {command[0] for command in commands(manifests)}
    assert {"cytoray", "mlflow"} <= seen <= {"cytoray", "mlflow", "python", "mkdir"}
    for command in commands(manifests):
        if command[0] == "mlflow":
            assert_click_takes(found("mlflow.cli.cli"), command[1:])
        elif command[0] == "cytoray":
            shown = help_of(*command[1:3])
            for option in (one for one in command if one.startswith("--")):
                assert option in shown


@cache
def help_of(*names: str) -> str:
    installed = Path(sys.executable).with_name("cytoray")
    told = subprocess.run([installed, *names, "--help"], capture_output=True, text=True, timeout=120, check=False)
    assert told.returncode == 0, told.stderr
    return re.sub(r"\x1b\[[0-9;]*m", "", told.stdout)


def assert_click_takes(command: Any, arguments: list[str]) -> None:
    """Let the command parse its arguments, without running it."""
    while hasattr(command, "commands"):
        command = command.commands[arguments[0]]
        arguments = arguments[1:]
    command.make_context("test", list(arguments), resilient_parsing=False).close()


@pytest.mark.slow
def test_the_registry_answers_to_the_names_that_it_is_called_by() -> None:
    from mlflow.server.security_utils import is_allowed_host_header

    server = named(render(EVERYTHING, namespace="lab"), "Deployment/cytoray-mlflow")["spec"]["template"]["spec"]
    command = server["containers"][0]["command"]
    allowed = command[command.index("--allowed-hosts") + 1].split(",")
    for host in (
        "cytoray-mlflow:5000",
        "cytoray-mlflow.lab.svc.cluster.local:5000",
        "127.0.0.1:5000",
        "localhost:5001",
        "c.example.org",
    ):
        assert is_allowed_host_header(allowed, host), host
    for host in ("evil.example.org", "cytoray-mlflow.evil.example.org:5000"):
        assert not is_allowed_host_header(allowed, host), host


def test_the_registrys_database_is_reached_through_a_driver_that_is_pinned() -> None:
    from sqlalchemy.engine import make_url

    container = named(render("production"), "Deployment/cytoray-mlflow")["spec"]["template"]["spec"]["containers"][0]
    variables = {one["name"]: one for one in container["env"]}
    names = [one["name"] for one in container["env"]]
    # Kubernetes fills in only what was named before.
    assert names.index("DATABASE_PASSWORD") < names.index("MLFLOW_BACKEND_STORE_URI")
    url = make_url(variables["MLFLOW_BACKEND_STORE_URI"]["value"].replace("$(DATABASE_PASSWORD)", "abc"))
    assert (url.host, url.database, url.query["sslmode"]) == ("postgresql.example.org", "mlflow", "require")
    assert url.get_driver_name() == "psycopg"
    assert "psycopg==" in (REPOSITORY / "constraints.txt").read_text()


@pytest.mark.slow
def test_the_bucket_is_made_once_and_then_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        script = CHART / "files" / "mlflow" / "bucket.py"
        pod = named(render(), "Deployment/cytoray-mlflow")["spec"]["template"]["spec"]
        command = pod["initContainers"][1]["command"]
        assert command == ["python", "-c", script.read_text(), "cytoray"]

        def run() -> str:
            return subprocess.run(
                [sys.executable, *command[1:]], capture_output=True, text=True, timeout=60, check=True
            ).stdout.strip()

        assert run() == "created cytoray"
        boto3.client("s3").put_object(Bucket="cytoray", Key="kept", Body=b"1")
        assert run() == "cytoray exists"
        assert boto3.client("s3").get_object(Bucket="cytoray", Key="kept")["Body"].read() == b"1"
    finally:
        server.stop()
