"""The service on a Ray cluster of several nodes, deployed as KubeRay does it: Serve's own config, given to the head."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.images import read_image
from cytoray_analysis.predictor import Predictor
from cytoray_services.settings import Settings
from cytoray_serving.client import Client
from cytoray_serving.cluster import ENVIRONMENT
from cytoray_serving.open_inference.grpc import SERVICER
from ray_nodes import RayNode, RayNodes, ray_nodes
from serving_samples import noise, tiff_bytes

pytestmark = [pytest.mark.ray, pytest.mark.long]

PORT, GRPC_PORT, METRICS_PORT = 8000, 9000, 9464
# HAProxy keeps its sockets at fixed places, which each node of a real cluster has for itself.
SOCKETS = Path("/tmp/haproxy-serve")  # noqa: S108
SERVICE = {
    "models": [
        {
            "model": "nuclei@champion",
            "replicas": {"min_replicas": 2, "max_replicas": 2},
            "resources": {"nodes": {"replica": 1}},
        }
    ],
    "shared": None,
    "gateways": 1,
    "gateway_nodes": "gateway",
    "metrics_port": METRICS_PORT,
    "insecure_local": True,
}


@dataclass(frozen=True)
class Cluster:
    """A head, a node for the gateway and one for each of two replicas."""

    nodes: RayNodes
    gateway: RayNode
    client: Any

    @property
    def url(self) -> str:
        return f"http://{self.gateway.ip}:{PORT}"

    def state(self) -> dict[str, Any]:
        """Return what Serve says of the application, as KubeRay asks for it."""
        found: dict[str, Any] = self.client.get_serve_details()["applications"].get("cytoray", {})
        return found

    def wait(self, state: str, seconds: float = 150.0) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while (found := self.state()).get("status") != state:
            hopeless = state == "RUNNING" and found.get("status") == "DEPLOY_FAILED"
            assert not hopeless, found["message"]
            assert time.monotonic() < end, json.dumps(found, default=str)[:3000]
            time.sleep(0.5)
        return found


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def cluster(registered: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    folder = tmp_path_factory.mktemp("service")
    config = folder / "service.yaml"
    config.write_text(json.dumps(SERVICE))
    SOCKETS.mkdir(exist_ok=True)
    with ray_nodes(1, cpus=0, environment=ENVIRONMENT | {"CYTORAY_HOME": str(registered)}) as nodes:
        gateway = nodes.add(resources='{"gateway": 1}', blind_to=SOCKETS)
        if gateway.namespace is None:
            pytest.skip("no network namespaces here: nodes of one machine cannot all listen on the same port")
        for _ in range(2):
            nodes.add(cpus=1, resources='{"replica": 1}', blind_to=SOCKETS)
        client = ServeSubmissionClient(nodes.dashboard)
        client.deploy_applications(
            {
                "proxy_location": "EveryNode",
                "http_options": {"host": "0.0.0.0", "port": PORT},
                "grpc_options": {"port": GRPC_PORT, "grpc_servicer_functions": [SERVICER]},
                "applications": [
                    {
                        "name": "cytoray",
                        "route_prefix": "/",
                        "import_path": "cytoray_serving.cluster:application",
                        "args": {"config": str(config)},
                    }
                ],
            }
        )
        found = Cluster(nodes, gateway, client)
        found.wait("RUNNING")
        end = time.monotonic() + 90  # HAProxy, which each node has, hears of the application a moment later
        while not answers(f"{found.url}/health/ready"):
            assert time.monotonic() < end
            time.sleep(0.2)
        yield found


def test_gateway_and_replicas_run_on_the_nodes_that_are_theirs(cluster: Cluster) -> None:
    deployments = cluster.state()["deployments"]
    places = {
        name: sorted(replica["node_ip"] for replica in one["replicas"] if replica["state"] == "RUNNING")
        for name, one in deployments.items()
    }
    gateway, *others = [node.ip for node in cluster.nodes.workers]
    assert places["gateway"] == [gateway]
    assert places["model-0-nuclei-champion"] == sorted(others)


def test_a_service_across_nodes_answers_like_the_predictor(cluster: Cluster, bundle_folder: Path) -> None:
    body = tiff_bytes(noise(200, 300, seed=5))
    with Client(cluster.url) as client:
        answer = client.predict(body, model="nuclei@champion")
    expected = Predictor(Bundle.load(bundle_folder)).predict(read_image(body))
    np.testing.assert_array_equal(answer.labels(), expected.answer)


def test_a_gateway_has_its_metrics_at_a_port_of_its_own(cluster: Cluster) -> None:
    text = httpx.get(f"http://{cluster.gateway.ip}:{METRICS_PORT}/metrics").text
    assert 'cytoray_requests_total{model="nuclei",status="200"}' in text


def test_what_kuberay_asks_of_a_pod_is_answered_where_a_gateway_is(cluster: Cluster) -> None:
    assert httpx.get(f"{cluster.url}/-/healthz").status_code == 200


def test_a_node_that_is_lost_costs_no_request(cluster: Cluster) -> None:
    def ask(client: Client, number: int) -> int:
        return client.predict(tiff_bytes(noise(64, 96, seed=number)), model="nuclei").objects

    with Client(cluster.url) as client, ThreadPoolExecutor(3) as pool:
        client.predict(tiff_bytes(noise(64, 96)), model="nuclei")
        asked = [pool.submit(ask, client, number) for number in range(60)]
        asked[5].result()
        cluster.nodes.kill(cluster.nodes.workers[-1])
        assert len([one.result() for one in asked]) == 60
        cluster.nodes.add(cpus=1, resources='{"replica": 1}', blind_to=SOCKETS)
        cluster.wait("RUNNING")
        assert ask(client, 1000) >= 0


def test_a_model_that_is_not_registered_is_reported_as_the_state_of_the_application(
    cluster: Cluster, settings: Settings, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(json.dumps(SERVICE | {"models": [{"model": "ghosts@champion"}]}))
    cluster.client.deploy_applications(
        {
            "applications": [
                {
                    "name": "cytoray",
                    "route_prefix": "/",
                    "import_path": "cytoray_serving.cluster:application",
                    "args": {"config": str(wrong)},
                }
            ]
        }
    )
    assert "ghosts" in cluster.wait("DEPLOY_FAILED")["message"]
