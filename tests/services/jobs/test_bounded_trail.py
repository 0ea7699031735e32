"""What a caller does again and again, and what comes to nothing, adds a bounded number of lines to the audit trail."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from cytoray_analysis.errors import OverloadedError
from cytoray_services.jobs.service.audit import read_audit
from cytoray_services.jobs.service_backend import ServiceBackend
from cytoray_services.jobs.submission import read_submission
from services.jobs.jobs_service import RECIPE, Service, running
from services.jobs.kubernetes.api_server import ApiServer
from services.jobs.kubernetes.kuberay import Operator

Make = Callable[..., Service]
MANY = 40
A_MINUTE = 10  # refusals of one token that are written down


@pytest.fixture
def service(make: Make) -> Service:
    return make(acts_a_minute=12)


@pytest.fixture
def url(service: Service) -> Iterator[str]:
    with running(service.api) as url:
        yield url


@pytest.mark.slow
def test_bodies_that_are_broken_off_fill_no_disk(service: Service, url: str) -> None:
    head = (
        f"POST /jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.token('eve')}\r\n"
        f"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    )
    address = urlsplit(url)
    for _ in range(MANY):
        with socket.create_connection((address.hostname, address.port)) as half:
            half.sendall(head.encode() + b'{"recipe": ')
    _settled(service)
    lines = read_audit(service.audit)
    assert 0 < len(lines) <= A_MINUTE
    assert {line.outcome for line in lines} == {"refused"}


@pytest.mark.long
def test_a_cluster_that_does_not_answer_fills_no_disk(cluster: ApiServer, service: Service, url: str) -> None:
    header = {"Authorization": f"Bearer {service.token('eve')}"}
    cluster.fail(500, path="rayjobs", method="GET", times=10 * MANY)
    asked = (httpx.post(f"{url}/jobs", json={"recipe": RECIPE}, headers=header, timeout=60) for _ in range(MANY))
    assert {answer.status_code for answer in asked} == {503}
    assert len(read_audit(service.audit)) <= A_MINUTE


@pytest.mark.slow
def test_a_job_that_has_ended_is_stopped_again_and_again_without_a_trace(
    cluster: ApiServer, service: Service, url: str
) -> None:
    token = service.token("eve")
    job = ServiceBackend(url, token=token).submit(read_submission(RECIPE), owner="")
    operator = Operator(cluster, job.id)
    operator.initialize()
    operator.finish()
    before = len(read_audit(service.audit))
    for _ in range(MANY):
        answer = httpx.delete(f"{url}/jobs/{job.id}", headers={"Authorization": f"Bearer {token}"}, timeout=60)
        assert (answer.status_code, answer.json()["state"]) == (200, "done")
    lines = read_audit(service.audit)[before:]
    assert len(lines) <= A_MINUTE
    assert {(line.outcome, line.reason) for line in lines} == {("refused", "the job has ended already")}


@pytest.mark.slow
def test_what_the_cluster_refuses_each_time_is_begun_so_often_a_minute(service: Service, url: str) -> None:
    eve = ServiceBackend(url, token=service.token("eve"))
    wrong = read_submission(RECIPE.replace("/data/images/nuclei", "pvc://salaries/2026"))
    errors = []
    for _ in range(MANY):
        with pytest.raises(Exception, match=r"salaries|acts per minute") as caught:
            eve.submit(wrong, owner="")
        errors.append(caught.value)
    assert [isinstance(one, OverloadedError) for one in errors] == [False] * 12 + [True] * (MANY - 12)
    lines = read_audit(service.audit)
    assert len([line for line in lines if line.outcome == "begun"]) == 12
    assert len(lines) <= 2 * 12 + A_MINUTE
    ServiceBackend(url, token=service.token("ada")).submit(read_submission(RECIPE), owner="")  # others go on


def _settled(service: Service) -> None:
    """Wait until no more lines come."""
    size, until = -1, time.monotonic() + 20
    while time.monotonic() < until:
        time.sleep(1)
        now = service.audit.stat().st_size if service.audit.exists() else 0
        if now == size and now:
            return
        size = now
