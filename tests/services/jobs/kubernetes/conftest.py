from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cytoray_services.jobs.kubernetes import connection
from cytoray_services.jobs.kubernetes.backend import KubernetesBackend, open_kubernetes
from services.jobs.kubernetes.api_server import ApiServer
from services.jobs.kubernetes.lab import Submit, install, make_submission


@pytest.fixture
def server() -> Iterator[ApiServer]:
    """An API server with a namespace in which the chart is installed."""
    server = ApiServer()
    install(server)
    yield server
    server.close()


@pytest.fixture
def kubeconfig(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = server.kubeconfig(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.setattr(connection, "BACKOFF_SECONDS", 0.01)
    return path


@pytest.fixture
def place(kubeconfig: Path) -> KubernetesBackend:
    return open_kubernetes("")


@pytest.fixture
def submit(place: KubernetesBackend) -> Submit:
    """Submit a job and return its id."""

    def submit(job_id: str = "nuclei-x7k2q", **scale: Any) -> str:
        return place.submit(make_submission(job_id, **scale), owner="ann", team="cells").id

    return submit
