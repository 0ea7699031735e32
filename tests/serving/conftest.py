"""What the tests of serving share: small bundles, wrong requests, and a running service."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.predictor import Predictor
from cytoray_services.free_ports import free_port
from cytoray_services.registry import Registry
from cytoray_services.settings import Settings, load_settings
from serving_in_process import config_of, in_process
from serving_samples import (
    MAIN,
    WRONG_REQUESTS,
    WrongRequest,
    write_cell_bundle,
    write_linker_bundle,
    write_small_bundle,
    write_stain_bundle,
)


@pytest.fixture
def settings(registered: Path, tmp_path: Path) -> Settings:
    """Give the test a home of its own with two versions of ``nuclei``, the first of them champion."""
    # Without what a service of the session has noted there of its replicas.
    home = shutil.copytree(registered, tmp_path / "home", ignore=shutil.ignore_patterns("warm"))
    return load_settings({"CYTORAY_HOME": str(home)})


@pytest.fixture
def registry(settings: Settings) -> Registry:
    """Give the registry in that home."""
    return Registry.open(settings)


@dataclass(frozen=True)
class RunningService:
    """A ``cytoray serve`` in a process of its own, and the registry that it follows."""

    url: str
    grpc: str | None
    process: subprocess.Popen[str]
    registry: Registry
    log: Path


@pytest.fixture(params=list(WRONG_REQUESTS.values()), ids=list(WRONG_REQUESTS))
def wrong_request(request: pytest.FixtureRequest) -> WrongRequest:
    """Give one wrong request after the other."""
    found: WrongRequest = request.param
    return found


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a small bundle, the same for the whole session."""
    return write_small_bundle(tmp_path_factory.mktemp("bundles") / "nuclei")


@dataclass(frozen=True)
class Folders:
    """A small bundle for each kind of answer."""

    nuclei: Path
    stain: Path
    cells: Path
    linker: Path


@pytest.fixture(scope="session")
def folders(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Give a small bundle for each kind of answer."""
    folder = tmp_path_factory.mktemp("kinds")
    return Folders(
        nuclei=bundle_folder,
        stain=write_stain_bundle(folder / "stain"),
        cells=write_cell_bundle(folder / "cells"),
        linker=write_linker_bundle(folder / "linker"),
    )


@pytest.fixture(scope="session")
def segmenter(folders: Folders) -> Predictor:
    """Give a model whose answers are labels."""
    return Predictor(Bundle.load(folders.nuclei))


@pytest.fixture(scope="session")
def stainer(folders: Folders) -> Predictor:
    """Give a model whose answers are images."""
    return Predictor(Bundle.load(folders.stain))


@pytest.fixture(scope="session")
def classifier(folders: Folders) -> Predictor:
    """Give a model whose answers are classes."""
    return Predictor(Bundle.load(folders.cells))


@pytest.fixture(scope="session")
def linker(folders: Folders) -> Predictor:
    """Give a model whose answers are lineages."""
    return Predictor(Bundle.load(folders.linker))


@pytest.fixture(scope="session")
def registered(bundle_folder: Path, registry_without_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a home folder whose registry has two versions of ``nuclei``, the first of them champion."""
    home = Path(shutil.copytree(registry_without_models, tmp_path_factory.mktemp("registered") / "home"))
    registry = Registry.open(load_settings({"CYTORAY_HOME": str(home)}))
    registry.register(bundle_folder, "nuclei", alias="champion")
    other = write_small_bundle(tmp_path_factory.mktemp("bundles") / "nuclei", seed=1)
    registry.register(other, "nuclei", alias=None)
    return home


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder that the service may read and write."""
    return tmp_path_factory.mktemp("places")


@pytest.fixture(scope="session")
def service(registered: Path, places: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Run ``cytoray serve nuclei@champion`` with bodies of at most eight megabytes."""
    folder = tmp_path_factory.mktemp("service")
    words = ["nuclei@champion", "--largest-body", "8", "--allow", str(places), "--grpc-port", "0"]
    running = start_serving(registered, folder / "log.txt", *words)
    yield running
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(60) == 0, running.log.read_text()[-3000:]


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[..., RunningService]]:
    """Give the function that starts a service; the test stops it, and one that fails leaves it to be stopped here."""
    started: list[RunningService] = []

    def start(home: Path, log: Path, *arguments: str) -> RunningService:
        started.append(start_serving(home, log, *arguments))
        return started[-1]

    yield start
    for running in started:
        if running.process.poll() is None:
            running.process.terminate()
            running.process.wait(90)


def start_serving(home: Path, log: Path, *arguments: str) -> RunningService:
    """Start ``cytoray serve`` and wait until it says that it is ready."""
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "serve", *arguments, "--insecure-local", "--port", "0", "--json"],
        env=environment | {"CYTORAY_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=log.open("w"),
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    said = json.loads(line or "{}")
    if "url" not in said:
        pytest.fail(f"cytoray serve ended with {process.wait(60)}, {line!r}:\n{log.read_text()[-3000:]}")
    registry = Registry.open(load_settings({"CYTORAY_HOME": str(home)}))
    return RunningService(said["url"], said["grpc"], process, registry, log)


@pytest.fixture(scope="module")
def address(folders: Folders, registered: Path) -> Iterator[str]:
    """Serve a model of each kind from a thread."""
    settings = load_settings({"CYTORAY_HOME": str(registered)})
    api = in_process(settings, config_of([str(folder) for folder in vars(folders).values()])).api
    web = uvicorn.Server(uvicorn.Config(api, host="127.0.0.1", port=free_port(), log_level="error"))
    thread = threading.Thread(target=web.run, daemon=True)
    thread.start()
    while not web.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{web.config.port}"
    web.should_exit = True
    thread.join(10)
