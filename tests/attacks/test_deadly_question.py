"""A question that ends the replica that works on it, among others: it alone is not answered, and ends no third one."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

sys.path.append(str(Path(__file__).parents[1] / "bench"))

import psutil
from chaos import make_registry
from servers import Server, start_cytoray

from serving_samples import noise, tiff_bytes

pytestmark = [pytest.mark.attacks, pytest.mark.long, pytest.mark.ray, pytest.mark.timeout(900)]

# Python runs it at the start of every process of the service: a fault of the network that one image causes.
DEADLY = """
import importlib.abc, importlib.util, os, sys

class Deadly(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "cytoray_serving.replica.replica":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def exec_module(module):
            execute(module)
            outcomes = module.LoadedModel._outcomes
            def end(self, batch):
                if any(one.image.read().max() == 0 for one in batch):
                    os._exit(9)
                return outcomes(self, batch)
            module.LoadedModel._outcomes = end
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Deadly())
"""
CONFIG = """
gateways: 2
limits: {seconds: 600}
models:
- {model: nuclei@champion, run: {threads: 1}}
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    (tmp_path / "deadly").mkdir()
    (tmp_path / "deadly" / "sitecustomize.py").write_text(DEADLY)
    (tmp_path / "service.yaml").write_text(CONFIG)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'deadly'}:{os.environ.get('PYTHONPATH', '')}")
    make_registry(tmp_path / "home", versions=1)
    with start_cytoray(["--config", str(tmp_path / "service.yaml")], home=tmp_path / "home") as server:
        yield server


def test_only_the_question_that_ends_replicas_is_not_answered(server: Server) -> None:
    deadly = tiff_bytes(noise(64, 64) * 0)
    images = [tiff_bytes(noise(64, 64, seed=seed)) for seed in range(9)]
    images.insert(4, deadly)
    seen: set[int] = set()
    done = threading.Event()

    def count() -> None:
        while not done.wait(0.1):
            for process in server.process.children(recursive=True):
                try:
                    if "ray::ServeReplica:cytoray:model-0" in " ".join(process.cmdline()):
                        seen.add(process.pid)
                except psutil.Error:
                    continue

    counter = threading.Thread(target=count)
    counter.start()

    def ask(image: bytes) -> httpx.Response:
        return httpx.post(server.url, content=image, headers={"Content-Type": "image/tiff"}, timeout=600)

    with ThreadPoolExecutor(len(images)) as pool:
        answers = list(pool.map(ask, images))
        after = ask(images[0])
    done.set()
    counter.join()
    fatal = answers.pop(4)
    assert (fatal.status_code, fatal.json()["error"]) == (422, "UnanswerableError")
    assert [answer.status_code for answer in (*answers, after)] == [200] * 10
    assert len(seen) <= 3, "the first replica, and one in the place of each of two"
