"""A service that takes the place of another is warm before it says that it serves."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from cytoray_services.registry import Registry
from cytoray_serving.client import Client
from cytoray_serving.service.warmth import read_warmth
from serving_samples import GOOD

pytestmark = pytest.mark.ray

REPLICAS = {"min_replicas": 0, "max_replicas": 1}
CONFIG = {"models": [{"model": "nuclei@champion", "replicas": REPLICAS, "run": {"threads": 1}}]}


def replicas_of(service: Any, deployment: str) -> list[psutil.Process]:
    children = psutil.Process(service.process.pid).children(recursive=True)
    return [one for one in children if f"ServeReplica:cytoray:{deployment}" in " ".join(one.cmdline())]


def stop(service: Any) -> None:
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(90) == 0, service.log.read_text()[-3000:]


@pytest.mark.long
def test_the_next_service_has_the_replicas_of_the_one_before(
    serve: Callable[..., Any], settings: Any, registry: Registry, folders: Any, tmp_path: Path
) -> None:
    registry.register(folders.stain, "stain", alias="champion")
    config = tmp_path / "service.yaml"
    config.write_text(json.dumps(CONFIG))
    first = serve(settings.home, tmp_path / "first.txt", "--config", str(config))
    assert not replicas_of(first, "model-0")
    assert not replicas_of(first, "shared")
    with Client(first.url) as client:
        versions = {model: client.predict(GOOD, model=model).version for model in ("nuclei", "stain")}
    end = time.monotonic() + 60
    while set(read_warmth(settings.home / "warm").replicas) != {"nuclei@champion", "shared"}:
        assert time.monotonic() < end
        time.sleep(0.5)
    stop(first)
    (settings.home / "warm" / "damaged.json").write_text("{")
    ghost = {"written": time.time(), "replicas": {"ghosts@champion": 3}, "shared": ["ghosts@champion"]}
    (settings.home / "warm" / "ghost.json").write_text(json.dumps(ghost))
    second = serve(settings.home, tmp_path / "second.txt", "--config", str(config))
    assert len(replicas_of(second, "model-0")) == 1
    assert len(replicas_of(second, "shared")) == 1
    with Client(second.url) as client:
        for model, version in versions.items():
            begun = time.monotonic()
            assert client.predict(GOOD, model=model).version == version
            assert time.monotonic() - begun < 5
    stop(second)
    assert "damaged.json is omitted" in second.log.read_text()
