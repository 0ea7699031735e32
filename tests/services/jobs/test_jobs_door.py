"""The door of the jobs service: bodies of any length form are counted as they come, half-sent requests end."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn

from cytoray_services.jobs.service import door
from cytoray_services.jobs.service.door import PromptHeaders
from services.jobs.jobs_service import RECIPE, Service

Make = Callable[..., Service]
CHECK = json.dumps({"recipe": RECIPE}).encode()


class Impatient(PromptHeaders):
    header_seconds = 1.0


@contextmanager
def serving(api: Any) -> Iterator[tuple[str, int]]:
    """Serve as the service does, with less patience."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(api, http=Impatient, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield listening.getsockname()
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def service(make: Make) -> Service:
    return make()


@pytest.fixture
def address(service: Service) -> Iterator[tuple[str, int]]:
    with serving(service.api) as address:
        yield address


def test_a_body_that_declares_no_length_is_counted_as_it_comes(service: Service, address: tuple[str, int]) -> None:
    header = {"Authorization": f"Bearer {service.token('ada')}", "Content-Type": "application/json"}
    url = f"http://{address[0]}:{address[1]}/jobs/check"
    sent: list[int] = []

    def pieces(content: bytes, times: int = 1) -> Iterator[bytes]:
        for _ in range(times):
            sent.append(len(content))
            yield content

    assert httpx.post(url, content=pieces(CHECK), headers=header, timeout=60).status_code == 200
    answer = httpx.post(url, content=pieces(b" " * 2**18, 5), headers=header, timeout=60)
    assert (answer.status_code, answer.json()["field"]) == (400, "body")
    assert httpx.post(url, content=pieces(b"x"), headers={"Content-Type": "application/json"}).status_code == 401


@pytest.mark.slow
def test_packed_bodies_are_unpacked_within_the_limit(service: Service, address: tuple[str, int]) -> None:
    header = {"Authorization": f"Bearer {service.token('ada')}", "Content-Type": "application/json"}
    url = f"http://{address[0]}:{address[1]}/jobs/check"
    packed = header | {"Content-Encoding": "gzip"}
    assert httpx.post(url, content=gzip.compress(CHECK), headers=packed).status_code == 200
    assert httpx.post(url, content=gzip.compress(bytes(2**24)), headers=packed).status_code == 413
    assert httpx.post(url, content=CHECK, headers=packed).status_code == 400
    assert httpx.post(url, content=CHECK, headers=header | {"Content-Encoding": "br"}).status_code == 400


@pytest.mark.slow
def test_half_sent_headers_end_the_connection_and_hold_up_no_one(address: tuple[str, int]) -> None:
    halves = [socket.create_connection(address) for _ in range(50)]
    for number, one in enumerate(halves):
        one.sendall(b"" if number % 2 else b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-A: ")
    assert httpx.get(f"http://{address[0]}:{address[1]}/health/live", timeout=30).status_code == 200
    began = time.monotonic()
    for one in halves:
        one.settimeout(30)
        assert one.recv(100) == b""
        one.close()
    assert time.monotonic() - began < 15


@pytest.mark.slow
def test_the_second_request_of_a_connection_must_come_whole_as_well(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as kept:
        kept.settimeout(30)
        kept.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\nGET /health/live HTTP/1.1\r\nHost")
        come = b""
        while piece := kept.recv(4096):
            come += piece
        assert come.count(b"HTTP/1.1 200") == 1


@pytest.mark.slow
def test_a_body_that_does_not_come_is_not_waited_for(
    service: Service, address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "_GRACE_SECONDS", 0.5)
    head = (
        f"POST /jobs/check HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.token('ada')}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(CHECK)}\r\n\r\n"
    )
    with socket.create_connection(address) as stalled:
        stalled.settimeout(30)
        stalled.sendall(head.encode() + CHECK[:10])
        assert b" 408 " in stalled.recv(4096).partition(b"\r\n")[0]
