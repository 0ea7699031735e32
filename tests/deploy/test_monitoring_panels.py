"""Every panel has data: Prometheus scrapes a real service and a real training while they work."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from cytoray_services.datasets import hash_dataset, make_segmentation
from cytoray_services.free_ports import free_port
from cytoray_serving.client import Client
from cytoray_training.plan.plan import Plan
from cytoray_training.recipe import parse_recipe
from cytoray_training.run.launch import launch
from cytoray_training.run.progress_metrics import progress_metrics
from serving_samples import GOOD, MAIN, noise, tiff_bytes, write_small_bundle

pytestmark = [pytest.mark.ray, pytest.mark.long]

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGURATION = REPOSITORY / "deploy" / "monitoring" / "prometheus.yml"
DASHBOARDS = REPOSITORY / "helm" / "cytoray" / "files" / "dashboards"
PATIENCE = 180.0  # seconds until every panel has had data
# What needs more than one machine with processors has.
CARDS = {"GPU use of nodes", "GPUs in use", "GPU use"}
KUBERNETES = {"Pods", "Restarts", "Waiting containers"}


@contextmanager
def prometheus(folder: Path, targets: Mapping[str, str]) -> Iterator[httpx.Client]:
    """Run Prometheus with our configuration, each second a scrape, on these targets; gives its API."""
    server = shutil.which("prometheus")
    if server is None:
        pytest.skip("prometheus is not installed (Debian: apt-get install prometheus)")
    content = yaml.safe_load(CONFIGURATION.read_text())
    content["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
    content["rule_files"] = [str(CONFIGURATION.parent / pattern) for pattern in content["rule_files"]]
    content["scrape_configs"] = [
        one | {"static_configs": [{"targets": [targets[one["job_name"]]]}]}
        for one in content["scrape_configs"]
        if one["job_name"] in targets
    ]
    assert len(content["scrape_configs"]) == len(targets)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(content))
    address = f"127.0.0.1:{free_port()}"
    words = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen([server, *words, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://{address}/api/v1", timeout=10) as api:
            yield api
    finally:
        process.terminate()
        process.wait(30)


def without_data(api: httpx.Client, name: str) -> set[str]:
    """Ask every query of a dashboard until it has had data; returns the panels that never had."""
    board = json.loads((DASHBOARDS / f"{name}.json").read_text())
    pending = {
        (panel["title"], target["expr"])
        for panel in board["panels"]
        if panel["type"] != "row"
        for target in panel["targets"]
    }
    known = CARDS | KUBERNETES
    end = time.monotonic() + PATIENCE
    while {title for title, _ in pending} - known and time.monotonic() < end:
        time.sleep(1)
        pending = {(title, query) for title, query in pending if not has_data(api, query)}
    return {title for title, _ in pending}


def has_data(api: httpx.Client, query: str) -> bool:
    for variable, value in (("$namespace", ".*"), ("$model", ".*"), ("$__rate_interval", "10s")):
        query = query.replace(variable, value)
    with suppress(httpx.TransportError):  # it is starting
        answer = api.get("/query", params={"query": query})
        if answer.status_code != 503:
            assert answer.status_code == 200, f"{query}: {answer.text}"
            return any(math.isfinite(float(one["value"][1])) for one in answer.json()["data"]["result"])
    return False


def firing(api: httpx.Client) -> set[str]:
    found = api.get("/alerts").json()["data"]["alerts"]
    return {alert["labels"]["alertname"] for alert in found if alert["state"] == "firing"}


def test_every_panel_of_the_service_shows_a_service_under_load(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(400):
        (tmp_path / "in" / f"{number}.tif").write_bytes(tiff_bytes(noise(256, 256, seed=number)))
    bundle = write_small_bundle(tmp_path / "nuclei")
    with serving(tmp_path, str(bundle), "--allow", str(tmp_path)) as (url, process), Client(url) as client:
        client.submit_job("nuclei", f"file://{tmp_path}/in", f"file://{tmp_path}/out", format="tif")
        targets = {"cytoray-gateway": url.removeprefix("http://"), "cytoray-ray": exporter_below(process)}
        with prometheus(tmp_path, targets) as api, under_load(url):
            missing = without_data(api, "service")
            alerts = firing(api)
    assert not missing
    assert not alerts


def test_every_panel_shows_a_training_and_its_cluster(ray_cluster: None, tmp_path: Path) -> None:
    import ray

    (node,) = ray.nodes()  # type: ignore[no-untyped-call]
    plan = small_plan(tmp_path)
    exporter = f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"
    with (
        serving_jobs(tmp_path) as jobs,
        prometheus(tmp_path, {"cytoray-ray": exporter, "cytoray-jobs": jobs}) as api,
    ):
        with progress_metrics(plan, "tiny-run") as listen:
            launch(plan, tmp_path / "runs" / "tiny", listen=listen)
            missing = without_data(api, "training") | without_data(api, "cluster")
            # As the board asks, of this listener: that of `launch` may still be in the last scrape, an epoch behind.
            query = 'max by (model, run) (ray_cytoray_training_epoch{model="tiny",run="tiny-run"}) == 3'
            assert wait_until(lambda: has_data(api, query)), "the last epoch is not shown"
        print("no data, as expected on a machine without cards and Kubernetes:", sorted(missing))
        gone = wait_until(lambda: not has_data(api, "ray_cytoray_training_moved_timestamp_seconds"))
    assert missing <= CARDS | KUBERNETES
    assert gone, "a training that has ended would look stuck"


def small_plan(folder: Path) -> Plan:
    cells = make_segmentation(folder / "cells", images=8, size=96, seed=3)
    recipe = parse_recipe(
        {
            "model": {"name": "tiny", "network": {"arguments": {"widths": [8, 16]}}},
            "data": {"root": str(cells.root), "channels": "grey"},
            "training": {"epochs": 3, "crops_per_epoch": 16, "crop_size": 64, "batch_size": 4, "engine": "torch"},
        }
    )
    return Plan(recipe, cells, hash_dataset(cells), {}, folder / "home")


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[tuple[str, psutil.Process]]:
    """Run ``cytoray serve``; gives its address and its process."""
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", MAIN, "serve", *words, "--insecure-local", "--port", "0", "--json"],
            env=os.environ | {"CYTORAY_HOME": str(folder / "home")},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        assert '"url"' in line, line + (folder / "serve.log").read_text()[-3000:]
        yield json.loads(line)["url"], psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@contextmanager
def serving_jobs(folder: Path) -> Iterator[str]:
    """Run ``cytoray jobs serve``; gives where it listens."""
    port = free_port()
    (folder / "jobs.yaml").write_text(yaml.safe_dump({"place": "local", "audit": f"{folder}/audit", "look_seconds": 1}))
    words = ["jobs", "serve", "--config", f"{folder}/jobs.yaml", "--port", str(port), "--insecure-local"]
    with (folder / "jobs.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", MAIN, *words],
            env=os.environ | {"CYTORAY_HOME": str(folder / "home")},
            stdout=log,
            stderr=log,
        )
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def exporter_below(process: psutil.Process) -> str:
    """Return where the Ray instance of a service has its metrics, which it is not asked to do at a port of its own."""
    for child in process.children(recursive=True):
        with suppress(psutil.Error):
            if "DashboardAgent" not in " ".join(child.cmdline()):
                continue
            for port in {one.laddr.port for one in child.net_connections() if one.status == psutil.CONN_LISTEN}:
                with suppress(httpx.HTTPError):
                    if "ray_node_cpu_count" in httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=2).text:
                        return f"127.0.0.1:{port}"
    raise AssertionError("no exporter of Ray was found")


@contextmanager
def under_load(url: str) -> Iterator[None]:
    """Ask all the time, two at a time, also what cannot be answered."""
    ended = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=30) as http:
            while not ended.is_set():
                for body in (GOOD, GOOD, b"no image"):
                    http.post("/models/nuclei/predict", content=body)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def wait_until(holds: Callable[[], bool], seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(1)
    return False
