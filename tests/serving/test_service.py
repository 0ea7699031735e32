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
from cytoray_services.http.errors import ErrorBody
from cytoray_serving.client import Client
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


def test_refused_uploads_are_answered_and_so_is_what_comes_next_on_the_connection(service: Any) -> None:
    large = bytes(9 * 2**20)

    def ask(_: int) -> list[int]:
        with httpx.Client(base_url=service.url, timeout=30) as http:
            return [http.post("/models/nuclei/predict", content=body).status_code for body in (large, GOOD) * 15]

    with ThreadPoolExecutor(3) as callers:
        assert list(callers.map(ask, range(3))) == [[413, 200] * 15] * 3


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


def test_a_replica_that_is_killed_costs_no_request(service: Any) -> None:
    def ask(client: Client, number: int) -> int:
        return client.predict(tiff_bytes(noise(64, 96, seed=number)), model="nuclei").objects

    with Client(service.url) as client, ThreadPoolExecutor(3) as pool:
        expected = [ask(client, number) for number in range(5)]
        answers = pool.map(ask, [client] * 60, [number % 5 for number in range(60)])
        (replica,) = replicas_of(service, "model-0")
        replica.kill()
        assert list(answers) == expected * 12
        assert client.ready()


@pytest.mark.long
def test_a_killed_proxy_refuses_no_connection(service: Any) -> None:
    port = httpx.URL(service.url).port
    listening = (one for one in psutil.net_connections("tcp4") if one.status == psutil.CONN_LISTEN and one.pid)
    (proxy,) = {one.pid for one in listening if one.laddr and one.laddr.port == port}
    killed = psutil.Process(proxy)
    assert killed.name() == "haproxy"
    killed.kill()
    seen, refused, end = [], 0.0, time.monotonic() + 20
    while time.monotonic() < end:
        began = time.monotonic()
        try:
            answer = httpx.get(f"{service.url}/health/live", timeout=10)
        except httpx.ConnectError:
            refused += 0.05 + time.monotonic() - began
        else:
            seen.append(answer.status_code)
            assert answer.status_code == 200 or "Retry-After" in answer.headers
        time.sleep(0.05)
    assert refused < 3
    assert set(seen) <= {200, 503}
    assert seen[-20:] == [200] * 20


def test_a_model_that_no_one_named_is_loaded_when_it_is_asked_for(service: Any, folders: Any) -> None:
    service.registry.register(folders.stain, "stain", alias="champion")
    assert not replicas_of(service, "shared")
    with Client(service.url) as client:
        answer = client.predict(GOOD, model="stain")
        assert (answer.kind, answer.version) == ("image", "1")
        assert len(replicas_of(service, "shared")) == 1
        assert client.predict(GOOD, model="nuclei", version="2").version == "2"


def test_an_unmodified_triton_client_is_answered_over_http_and_grpc(service: Any, tmp_path: Path) -> None:
    client = Path(__file__).parent / "open_inference" / "triton_client.py"
    np.save(tmp_path / "image.npy", read_image(GOOD).read())
    done = subprocess.run(
        [sys.executable, str(client), service.url.removeprefix("http://"), service.grpc, str(tmp_path / "image.npy")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    over_http, over_grpc = json.loads(done.stdout)
    with Client(service.url) as asked:
        labels = asked.predict(GOOD, model="nuclei").labels()
    assert over_http == over_grpc == labels.tolist()


def test_a_folder_is_answered_as_a_job(service: Any, places: Path) -> None:
    (places / "in").mkdir()
    for number in range(4):
        (places / "in" / f"{number}.tif").write_bytes(tiff_bytes(noise(64, 96, seed=number)))
    with Client(service.url) as client:
        taken = client.submit_job("nuclei", f"file://{places}/in", f"file://{places}/out", format="tif")
        *_, last = client.follow_job(taken.id)
        assert (last.state, last.items_done, last.items_failed) == ("done", 4, 0), last
        for number in range(4):
            asked = client.predict(places / "in" / f"{number}.tif", model="nuclei").labels()
            np.testing.assert_array_equal(read_image(places / "out" / f"{number}.tif").read(), asked)
        by_uri = client.predict(f"file://{places}/in/2.tif", model="nuclei")
        assert by_uri.labels().shape == (64, 96)


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


@pytest.mark.parametrize("killed", ["gcs_server", pytest.param("itself", marks=pytest.mark.long)])
def test_nothing_is_left_of_a_service_that_loses_a_process_it_needs(
    killed: str, serve: Callable[..., Any], bundle_folder: Path, tmp_path: Path
) -> None:
    running = serve(tmp_path / "home", tmp_path / "log.txt", str(bundle_folder))
    itself = psutil.Process(running.process.pid)
    started = itself.children(recursive=True)
    victim = itself if killed == "itself" else next(one for one in started if one.name() == killed)
    # Agents of Ray look after their node once in a while; they hold no port of ours.
    needed = [one for one in started if "Agent" not in one.name()]
    victim.kill()
    status = running.process.wait(60)
    assert status == (-signal.SIGKILL if killed == "itself" else 1), running.log.read_text()[-3000:]
    if killed != "itself":
        assert f"the service has ended: {killed}" in running.log.read_text()
    _, alive = psutil.wait_procs(needed, timeout=30)
    assert not alive
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            httpx.get(f"{running.url}/health/live", timeout=5)
        except httpx.TransportError:
            return
        time.sleep(0.5)
    pytest.fail("something still answers")


def test_a_service_without_tokens_does_not_start(registered: Path, tmp_path: Path) -> None:
    ended = serve_in_vain(registered, "nuclei", "--port", "0")
    assert (ended.returncode, json.loads(ended.stdout)["error"]) == (2, "MissingFileError")
    assert "--insecure-local" in ended.stdout


def test_only_this_machine_may_be_served_without_tokens(registered: Path) -> None:
    ended = serve_in_vain(registered, "--insecure-local", "--host", "0.0.0.0")
    assert (ended.returncode, json.loads(ended.stdout)["field"]) == (2, "host")


@pytest.mark.parametrize(
    ("words", "status", "error"),
    [(["--port", "TAKEN"], 1, "PlatformError"), (["--port", "0", "nothing"], 2, "ModelNotFoundError")],
)
def test_a_service_that_cannot_start_says_why(
    service: Any, registered: Path, words: list[str], status: int, error: str
) -> None:
    taken = str(httpx.URL(service.url).port)
    words = [taken if word == "TAKEN" else word for word in words]
    ended = serve_in_vain(registered, "--insecure-local", *words)
    assert (ended.returncode, json.loads(ended.stdout)["error"]) == (status, error), ended.stderr


def serve_in_vain(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a ``cytoray serve`` that ends by itself."""
    return subprocess.run(
        [sys.executable, "-c", MAIN, "serve", *words, "--json"],
        env=os.environ | {"CYTORAY_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def replicas_of(service: Any, deployment: str) -> list[psutil.Process]:
    """Return the processes of a deployment's replicas."""
    everyone = psutil.Process(service.process.pid).children(recursive=True)
    return [one for one in everyone if f"ServeReplica:cytoray:{deployment}" in " ".join(one.cmdline())]
