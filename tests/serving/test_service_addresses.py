"""A service at an IPv6 address, in an environment with proxies, asked in every way that HTTP allows."""

from __future__ import annotations

import gzip
import json
import signal
import socket
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import httpx
import pytest

from cytoray_services.free_ports import free_port
from cytoray_serving.client import Client
from cytoray_serving.open_inference.protocol import open_inference_pb2 as messages
from cytoray_serving.open_inference.protocol import open_inference_pb2_grpc as protocol
from serving_samples import GOOD

pytestmark = [pytest.mark.ray, pytest.mark.long]

CLOSED = "http://127.0.0.1:9"  # nothing listens there
HEALTH = ["/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"]
MODELS = ["/models", "/models/nuclei", "/models/ghosts", "/v2", "/v2/models/nuclei"]
OTHERS = ["/jobs", "/metrics", "/openapi.json", "/docs", "/nowhere"]
JAVA = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return free_port("::1")


@pytest.fixture(scope="module")
def running(
    serve: Callable[..., Any], registered: Path, metrics_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("addresses")
    config = folder / "service.yaml"
    config.write_text(json.dumps({"metrics_port": metrics_port, "models": [{"model": "nuclei@champion"}]}))
    with pytest.MonkeyPatch.context() as environment:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
            environment.setenv(name, CLOSED)
        words = ["--config", str(config), "--host", "::1", "--grpc-port", "0"]
        service = serve(registered, folder / "log.txt", *words)
    yield service
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(90) == 0, service.log.read_text()[-3000:]


@pytest.fixture
def http(running: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url, timeout=60, trust_env=False) as http:
        yield http


def listens(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        return probe.connect_ex((host, port)) == 0


def test_it_listens_at_the_address_that_was_asked_for_and_no_other(running: Any, metrics_port: int) -> None:
    ports = [httpx.URL(running.url).port, int(running.grpc.rpartition(":")[2]), metrics_port]
    for port in ports:
        assert port is not None
        assert listens("::1", port)
        assert not listens("127.0.0.1", port)
    assert "cytoray_" in httpx.get(f"http://[::1]:{metrics_port}/metrics", trust_env=False).text


def test_calls_over_grpc_are_answered(running: Any) -> None:
    with grpc.insecure_channel(running.grpc, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = protocol.GRPCInferenceServiceStub(channel)
        assert stub.ServerReady(messages.ServerReadyRequest(), timeout=60).ready


@pytest.mark.parametrize(
    "path",
    HEALTH + MODELS + OTHERS,
)
def test_head_answers_as_get_does(http: httpx.Client, path: str) -> None:
    got, answer = http.get(path), http.head(path)
    assert (answer.status_code, answer.content) == (got.status_code, b"")
    assert answer.headers["Content-Type"] == got.headers["Content-Type"]


def ask(http: httpx.Client, path: str, headers: dict[str, str], pack: Callable[..., bytes] = bytes) -> httpx.Response:
    kind = "application/json"
    if path.endswith("predict"):
        kind, body = "image/tiff", GOOD
    elif path.endswith("infer"):
        tensor = {"name": "image", "datatype": "UINT8", "shape": [32, 32], "data": [0, 200] * 512}
        body = json.dumps({"inputs": [tensor]}).encode()
    else:  # a job that lacks its output, so that none begins
        body = json.dumps({"input": "file:///images"}).encode()
    return http.post(path, content=pack(body), headers={"Content-Type": kind} | headers)


def require_understood(answer: httpx.Response) -> None:
    """The answer, or of a job what is missing."""
    if answer.status_code != 200:
        assert answer.status_code == 422, answer.text
        assert answer.json()["field"] == "body.output"


DOORS = ["/models/nuclei/predict", "/v2/models/nuclei/infer", "/models/nuclei/jobs"]


@pytest.mark.parametrize(
    "accept", [JAVA, "image/tiff;charset=utf-8, application/json;q=0.5", "application/json; charset=utf-8"]
)
@pytest.mark.parametrize("path", DOORS)
def test_every_door_takes_the_accept_headers_of_common_clients(http: httpx.Client, path: str, accept: str) -> None:
    require_understood(ask(http, path, {"Accept": accept}))


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
@pytest.mark.parametrize("path", DOORS)
def test_every_door_takes_packed_bodies(http: httpx.Client, path: str, coding: str, pack: Callable[..., bytes]) -> None:
    require_understood(ask(http, path, {"Content-Encoding": coding}, pack))


def test_several_lines_of_accept_are_one_list(http: httpx.Client) -> None:
    headers = [("Accept", "text/plain"), ("Accept", "application/geo+json"), ("Content-Type", "image/tiff")]
    answer = http.post("/models/nuclei/predict", content=GOOD, headers=headers)
    assert answer.headers["Content-Type"].startswith("application/geo+json")


def test_the_client_asks_at_that_address(running: Any) -> None:
    with Client(running.url) as client:
        assert client.predict(GOOD, model="nuclei").version == "1"
