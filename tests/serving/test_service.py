"""The service as people start it: ``cytoray serve`` in a process of its own, with its Ray instance."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.images import read_image
from cytoray_analysis.predictor import Predictor
from cytoray_serving.client import Client
from cytoray_serving.schema import ErrorBody
from serving_samples import GOOD, MAIN, WrongRequest, noise, tiff_bytes

pytestmark = pytest.mark.ray


def test_the_endpoint_answers_like_the_predictor(service: Any, bundle_folder: Path) -> None:
    body = tiff_bytes(noise(200, 300, seed=5))
    with Client(service.url) as client:
        assert client.ready()
        answer = client.predict(body, model="nuclei@champion")
    expected = Predictor(Bundle.load(bundle_folder)).predict(read_image(body))
    np.testing.assert_array_equal(answer.labels(), expected.answer)
    assert (answer.model, answer.version, answer.objects) == ("nuclei", "1", expected.objects)
    assert {"read", "queue", "network", "decode", "encode", "total"} == set(answer.seconds)


def test_wrong_requests_are_refused_and_the_next_one_is_answered(service: Any, wrong_request: WrongRequest) -> None:
    headers = {"Content-Type": wrong_request.content_type, "Accept": wrong_request.accept}
    with httpx.Client(base_url=service.url, timeout=30) as http:
        refused = http.post(f"/models/{wrong_request.model}/predict", content=wrong_request.body, headers=headers)
        body = ErrorBody.model_validate_json(refused.content)
        assert (refused.status_code, body.error) == (wrong_request.status, wrong_request.error or body.error)
        assert http.post("/models/nuclei/predict", content=GOOD).status_code == 200


def test_images_and_answers_of_many_megabytes_come_through(service: Any) -> None:
    body = tiff_bytes(noise(2400, 2500))
    with Client(service.url) as client:
        answer = client.predict(body, model="nuclei", accept="image/png")
    # Deployments speak gRPC, whose messages hold 4 MB by default.
    assert min(len(body), len(answer.body)) > 4 * 2**20


def test_requests_while_an_alias_moves_are_all_answered(service: Any) -> None:
    def ask(client: Client) -> str | None:
        return client.predict(GOOD, model="nuclei").version

    with Client(service.url) as client, ThreadPoolExecutor(3) as pool:
        assert ask(client) == "1"
        service.registry.promote("nuclei", "2")
        versions: list[str | None] = []
        end = time.monotonic() + 30
        while versions[-3:] != ["2"] * 3 and time.monotonic() < end:
            versions += pool.map(ask, [client] * 3)
        service.registry.rollback("nuclei")
        while versions[-3:] != ["1"] * 3 and time.monotonic() < end:
            versions += pool.map(ask, [client] * 3)
        (status,) = client.models()
    assert set(versions) == {"1", "2"}
    assert (status.version, status.registry) == ("1", "following")


def test_metrics_are_exposed(service: Any) -> None:
    with httpx.Client(base_url=service.url, timeout=30) as http:
        assert http.post("/models/nuclei/predict", content=GOOD).status_code == 200
        text = http.get("/metrics").text
        assert http.get("/openapi.json").json()["paths"]
    assert 'cytoray_stage_seconds_count{model="nuclei",stage="network"}' in text
    assert 'cytoray_model_info{digest="' in text


def test_an_interrupt_ends_the_service_and_all_that_it_started(
    serve: Callable[..., Any], bundle_folder: Path, tmp_path: Path
) -> None:
    running = serve(tmp_path / "home", tmp_path / "log.txt", str(bundle_folder))
    children = psutil.Process(running.process.pid).children(recursive=True)
    assert any("haproxy" in child.name() for child in children)
    with Client(running.url) as client:
        assert client.predict(GOOD, model="nuclei").version is None
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(60) == 0, running.log.read_text()[-2000:]
    gone, alive = psutil.wait_procs(children, timeout=15)
    assert not alive, [child.cmdline() for child in alive]
    assert gone
    with Client(running.url) as client:
        assert not client.ready()


@pytest.mark.parametrize(
    ("words", "status", "error"),
    [(["--port", "TAKEN"], 1, "PlatformError"), (["--port", "0", "nothing"], 2, "ModelNotFoundError")],
)
def test_a_service_that_cannot_start_says_why(
    service: Any, registered: Path, words: list[str], status: int, error: str
) -> None:
    taken = str(httpx.URL(service.url).port)
    ended = subprocess.run(
        [sys.executable, "-c", MAIN, "serve", "--json", *(taken if word == "TAKEN" else word for word in words)],
        env=os.environ | {"CYTORAY_HOME": str(registered)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ended.returncode, json.loads(ended.stdout)["error"]) == (status, error), ended.stderr
