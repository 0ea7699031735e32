from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cytoray_services.jobs.kubernetes import connection
from cytoray_services.jobs.kubernetes.backend import open_kubernetes
from services.jobs.jobs_service import Service, make_service
from services.jobs.kubernetes.api_server import ApiServer
from services.jobs.kubernetes.lab import install


@pytest.fixture
def cluster() -> Iterator[ApiServer]:
    """A Kubernetes for the jobs service, with the chart installed."""
    server = ApiServer()
    install(server)
    yield server
    server.close()


@pytest.fixture
def make(cluster: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Service]:
    """Return a function that makes a jobs service; keywords are fields of its configuration."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path)))
    monkeypatch.delenv("CYTORAY_TOKEN", raising=False)
    monkeypatch.setattr(connection, "BACKOFF_SECONDS", 0.01)

    def make(**config: Any) -> Service:
        return make_service(open_kubernetes(""), tmp_path, **config)

    return make
