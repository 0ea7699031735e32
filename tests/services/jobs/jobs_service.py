"""A jobs service in this process: real HTTP, real tokens, and a Kubernetes whose API server is that of the tests."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from cytoray_services.jobs.backend import JobBackend
from cytoray_services.jobs.service.app import create_jobs_api
from cytoray_services.jobs.service.config import JobsServiceConfig
from cytoray_services.tokens.access import Access
from cytoray_services.tokens.scopes import Scope
from cytoray_services.tokens.tokens import TokenFile, create_token

RECIPE = """\
model: {name: nuclei, task: {name: segmentation}, network: {name: unet, arguments: {widths: [8, 16]}}}
data: {root: /data/images/nuclei, channels: grey}
training: {epochs: 2, crop_size: 64, batch_size: 16, engine: torch}
scale: {workers: 2, gpus_per_worker: 1}
"""


@dataclass
class Service:
    """A jobs service, and what is beside it."""

    api: FastAPI
    folder: Path

    @property
    def audit(self) -> Path:
        return self.folder / "audit.jsonl"

    def token(self, name: str, team: str | None = None, scope: Scope = "submit") -> str:
        return create_token(self.folder / "tokens.json", name, (scope,), days=1, team=team)[0]


def make_service(backend: JobBackend, folder: Path, **config: Any) -> Service:
    """Put a service together whose tokens and trail lie in a folder."""
    create_token(folder / "tokens.json", "chief", ("administer",), days=1)
    decided = JobsServiceConfig(place="kubernetes", audit=folder / "audit.jsonl", look_seconds=0.2, **config)
    access = Access(TokenFile(folder / "tokens.json"))
    return Service(create_jobs_api(backend, decided, access=access, registry=CollectorRegistry()), folder)


@contextmanager
def running(api: FastAPI) -> Iterator[str]:
    """Serve on a free port, and give the address."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(api, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
