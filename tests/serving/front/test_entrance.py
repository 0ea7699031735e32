"""What a request passes before it is read: seen from outside, through a real server."""

from __future__ import annotations

import gzip
import socket
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cytoray_serving.front.limits import HEADER, FrontLimits
from cytoray_serving.front.rules import own_names
from front_doors import LARGE, SECRET, TOKEN, Door

PREDICT = "/models/nuclei/predict"
LET_IN = {"Authorization": TOKEN}
Open = Callable[..., Door]


def pieces(size: int, count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield bytes(size)


def test_without_a_token_nothing_of_the_body_is_read(open_door: Open) -> None:
    door = open_door(largest_body=2**30)
    answer = httpx.post(door.url + PREDICT, content=pieces(2**20, 4))
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert door.read == 0
    assert [error.status for error in door.refusals] == [401]


@pytest.mark.parametrize(("token", "status"), [("", 401), (f"Authorization: {TOKEN}\r\n", 413)])
def test_a_caller_who_sends_all_before_reading_reads_the_refusal(open_door: Open, token: str, status: int) -> None:
    door = open_door(largest_body=2**18)
    with socket.create_connection(door.address) as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\n{token}Content-Length: 800000\r\n\r\n".encode())
        for piece in pieces(100_000, 8):
            time.sleep(0.005)
            connection.sendall(piece)
        with connection.makefile("rb") as answer:
            assert answer.read().startswith(f"HTTP/1.1 {status} ".encode())


def test_a_refused_caller_who_sends_for_ever_is_cut_off(open_door: Open) -> None:
    door = open_door()
    began = time.monotonic()
    with socket.create_connection(door.address) as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nContent-Length: {2**40}\r\n\r\n".encode())
        connection.settimeout(10)
        with pytest.raises(OSError, match=r"reset|pipe"):
            connection.sendall(bytes(2**30))
    assert time.monotonic() - began < 5


def test_malformed_json_without_a_token_is_a_request_without_a_token(open_door: Open) -> None:
    door = open_door()
    answer = httpx.post(f"{door.url}/models/nuclei/jobs", content=b"{", headers={"Content-Type": "application/json"})
    assert answer.status_code == 401


def test_health_is_reported_to_everybody(open_door: Open) -> None:
    door = open_door()
    assert httpx.get(f"{door.url}/health/live").status_code == 200
    assert httpx.get(f"{door.url}/large").status_code == 401


@pytest.mark.slow
def test_only_serve_s_own_addresses_pass_without_a_token(open_door: Open) -> None:
    door = open_door(secret=SECRET)
    assert httpx.get(f"{door.url}/-/healthz").status_code == httpx.get(f"{door.url}/-/routes").status_code == 404
    for path in ("/-/", "/-/healthz/", "/-/healthz/x", "/-/x"):
        answer = httpx.post(door.url + path, headers={HEADER: SECRET}, content=pieces(2**20, 4))
        assert answer.status_code == 401, path


def test_what_did_not_come_through_the_proxy_is_refused(open_door: Open) -> None:
    door = open_door(secret=SECRET)
    assert httpx.post(door.url + PREDICT, headers=LET_IN, content=b"image").status_code == 403
    assert httpx.post(door.url + PREDICT, headers=LET_IN | {HEADER: "other"}, content=b"image").status_code == 403
    assert httpx.post(door.url + PREDICT, headers=LET_IN | {HEADER: SECRET}, content=b"image").status_code == 200
    assert httpx.get(f"{door.url}/health/live").status_code == 403


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "kind", "largest"),
    [
        (PREDICT, "image/tiff", 2**23),
        (PREDICT, "multipart/form-data; boundary=x", 2**23),
        (PREDICT, "application/json", 2**20),
        ("/models/nuclei/jobs", "application/json", 2**20),
        ("/models/nuclei/jobs", "text/plain", 2**20),
        ("/v2/models/nuclei/infer", "application/octet-stream", 2**23),
    ],
)
def test_a_body_is_as_large_as_its_address_allows(open_door: Open, path: str, kind: str, largest: int) -> None:
    door = open_door(largest_body=2**23)
    headers = LET_IN | {"Content-Type": kind}
    assert httpx.post(door.url + path, content=bytes(largest), headers=headers).json()["bytes"] == largest
    for content in (bytes(largest + 1), pieces(largest // 4 + 1, 4)):
        answer = httpx.post(door.url + path, content=content, headers=headers)
        assert answer.status_code == 413
        assert str(largest) in answer.text


def test_what_is_held_is_what_has_come(open_door: Open) -> None:
    door = open_door(bodies=2**22)
    with socket.create_connection(door.address) as stalled:
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nAuthorization: {TOKEN}\r\nContent-Length: 8000000\r\n\r\n"
        stalled.sendall(head.encode() + bytes(2**20))
        until(lambda: door.held.bytes == 2**20)
        assert httpx.post(door.url + PREDICT, content=bytes(2**20), headers=LET_IN).json()["held"] == 2**21
        answer = httpx.post(door.url + PREDICT, content=pieces(2**20, 5), headers=LET_IN)
        assert answer.status_code == 429
        assert answer.headers["Retry-After"] == "1"
    until(lambda: door.held.bytes == 0)
    assert httpx.post(door.url + PREDICT, content=bytes(5 * 2**20), headers=LET_IN).status_code == 200


@pytest.mark.slow
def test_a_body_that_comes_too_slowly_is_cut_off(open_door: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cytoray_serving.front.entrance._GRACE_SECONDS", 0.3)
    door = open_door(limits=FrontLimits(slow_kilobytes=1000.0))
    with socket.create_connection(door.address) as stalled:
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nAuthorization: {TOKEN}\r\nContent-Length: 8000000\r\n\r\n"
        stalled.sendall(head.encode() + b"begin")
        stalled.settimeout(10)
        assert stalled.recv(4096).startswith(b"HTTP/1.1 408 ")
    until(lambda: door.held.bytes == 0)


@pytest.mark.slow
def test_an_answer_is_held_until_it_is_taken_and_not_for_ever(open_door: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cytoray_serving.front.entrance._GRACE_SECONDS", 1.0)
    door = open_door(limits=FrontLimits(slow_kilobytes=1e6))
    with socket.create_connection(door.address) as unread:
        unread.sendall(f"GET /large HTTP/1.1\r\nHost: a\r\nAuthorization: {TOKEN}\r\n\r\n".encode())
        until(lambda: door.held.bytes > 2**23)  # what the kernel does not hold
        until(lambda: door.held.bytes == 0)
    assert httpx.get(f"{door.url}/large", headers=LET_IN).content == LARGE


def test_answers_that_are_not_taken_wait_on_disk(open_door: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cytoray_serving.front.entrance._PATIENCE_SECONDS", 0.2)
    door = open_door(limits=FrontLimits(slow_kilobytes=1.0))
    question = f"GET /large HTTP/1.1\r\nHost: a\r\nAuthorization: {TOKEN}\r\nConnection: close\r\n\r\n".encode()
    with socket.create_connection(door.address) as slow:
        slow.sendall(question)
        until(lambda: door.held.bytes > 2**23)
        until(lambda: door.held.bytes == 0 and door.ended == 1)  # the application holds it no longer, either
        slow.settimeout(20)
        answer = b"".join(iter(lambda: slow.recv(2**20), b""))
    assert answer.partition(b"\r\n\r\n")[2] == LARGE
    until(lambda: door.held.bytes == 0)


@pytest.mark.slow
def test_an_answer_that_no_disk_takes_stays_in_memory(
    open_door: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("cytoray_serving.front.entrance._PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    door = open_door(limits=FrontLimits(slow_kilobytes=1.0))
    with httpx.stream("GET", f"{door.url}/large", headers=LET_IN) as answer:
        until(lambda: door.held.bytes == len(LARGE))
        time.sleep(0.5)
        assert door.held.bytes == len(LARGE)
        assert answer.read() == LARGE
    until(lambda: door.held.bytes == 0)


@pytest.mark.slow
@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
@pytest.mark.parametrize("path", [PREDICT, "/v2/models/nuclei/infer", "/models/nuclei/jobs"])
def test_packed_bodies_are_unpacked_everywhere(open_door: Open, coding: str, pack: Any, path: str) -> None:
    door = open_door()
    answer = httpx.post(door.url + path, content=pack(b"ab" * 1000), headers=LET_IN | {"Content-Encoding": coding})
    assert answer.json() == {"bytes": 2000, "held": 2000, "coding": None}


@pytest.mark.slow
def test_a_bomb_is_refused_before_it_is_whole(open_door: Open) -> None:
    door = open_door()
    body = gzip.compress(bytes(200 * 2**20), compresslevel=1)
    answer = httpx.post(door.url + PREDICT, content=body, headers=LET_IN | {"Content-Encoding": "gzip"})
    assert answer.status_code == 413
    assert door.read <= 2**23


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "coding"), [(b"plain", "gzip"), (gzip.compress(b"x", mtime=0)[:-3], "gzip"), (b"x", "br"), (b"", "gzip")]
)
def test_damaged_packing_is_a_malformed_request(open_door: Open, body: bytes, coding: str) -> None:
    answer = httpx.post(open_door().url + PREDICT, content=body, headers=LET_IN | {"Content-Encoding": coding})
    assert answer.status_code == 400
    assert answer.json()["field"] in ("Content-Encoding", "body")


def test_head_answers_as_get_does_without_the_body(open_door: Open) -> None:
    door = open_door()
    for path in ("/health/live", "/large"):
        got = httpx.get(door.url + path, headers=LET_IN)
        answer = httpx.head(door.url + path, headers=LET_IN)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["Content-Length"] == str(len(got.content))


def test_head_of_a_stream_ends_the_stream(open_door: Open) -> None:
    door = open_door()
    with httpx.Client(headers=LET_IN, timeout=10) as http:
        for _ in range(2):  # on one connection, which is free again
            answer = http.head(f"{door.url}/events")
            assert answer.headers["Content-Type"].startswith("text/event-stream")
    end = time.monotonic() + 5
    while door.streams:
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8000"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:3000"}, 403),
        ({"Origin": "http://lab.example"}, 200),
        ({"Host": "localhost:8000", "Origin": "http://localhost:8000"}, 200),
        ({"Host": "localhost", "Origin": "http://localhost:80"}, 200),
        ({"Host": "hub.example"}, 200),
    ],
)
def test_a_page_of_another_host_cannot_ask_an_open_service(
    open_door: Open, headers: dict[str, str], status: int
) -> None:
    door = open_door(
        authorize=lambda authorization: None,
        names=own_names(("hub.example", "lab.example")),
        origins=frozenset(("http://lab.example",)),
    )
    assert httpx.post(door.url + PREDICT, content=b"x", headers=headers).status_code == status


def until(holds: Callable[[], bool], seconds: float = 15.0) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.02)
