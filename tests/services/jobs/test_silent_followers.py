"""Who follows logs that say nothing: one caller leaves room for others, and who has gone counts no longer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from cytoray_services.jobs.kubernetes import logs
from cytoray_services.jobs.service_backend import ServiceBackend
from cytoray_services.jobs.submission import read_submission
from services.jobs.jobs_service import RECIPE, Service, running
from services.jobs.kubernetes.api_server import ApiServer
from services.jobs.kubernetes.kuberay import Operator

Make = Callable[..., Service]


@pytest.fixture
def service(make: Make) -> Service:
    return make(followers=8)


@pytest.fixture
def url(service: Service) -> Iterator[str]:
    with running(service.api) as url:
        yield url


def follow(url: str, token: str, job: str, held: ExitStack) -> int:
    """Begin to follow a log, until `held` is left; return the status."""
    asked = httpx.stream(
        "GET", f"{url}/jobs/{job}/log?follow=true", headers={"Authorization": f"Bearer {token}"}, timeout=60
    )
    return held.enter_context(asked).status_code


def job_of(cluster: ApiServer, url: str, token: str, *lines: str) -> str:
    """Submit a job that has printed some lines, and says nothing more."""
    job = ServiceBackend(url, token=token).submit(read_submission(RECIPE), owner="")
    operator = Operator(cluster, job.id)
    operator.initialize()
    operator.make_pods()
    cluster.print(operator.run(), *lines)
    return job.id


@pytest.mark.slow
def test_one_caller_follows_a_quarter_of_all_logs(cluster: ApiServer, service: Service, url: str) -> None:
    eve, ada = service.token("eve"), service.token("ada")
    hers, other = job_of(cluster, url, eve, "hello"), job_of(cluster, url, ada, "hello")
    with ExitStack() as held:
        assert [follow(url, eve, hers, held) for _ in range(5)] == [200, 200, 429, 429, 429]
        assert [follow(url, ada, other, held) for _ in range(3)] == [200, 200, 429]


@pytest.mark.slow
@pytest.mark.parametrize("lines", [("hello",), ()])
def test_who_has_gone_from_a_log_that_says_nothing_counts_no_longer(
    cluster: ApiServer, service: Service, url: str, monkeypatch: pytest.MonkeyPatch, lines: tuple[str, ...]
) -> None:
    monkeypatch.setattr(logs, "_SILENT_SECONDS", 0.5)
    monkeypatch.setattr(logs, "_LOOK_SECONDS", 1.0)
    eve = service.token("eve")
    job = job_of(cluster, url, eve, *lines)
    until = time.monotonic() + 30
    for _ in range(5):
        with ExitStack() as held:
            followed = 0
            while followed < 2 and time.monotonic() < until:
                followed += follow(url, eve, job, held) == 200
                time.sleep(0.1)
        assert followed == 2
