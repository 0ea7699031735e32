"""What one address does to a service must not be felt at another."""

from __future__ import annotations

import http.client
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import attackers
from attackers import MEGABYTE, under_attack
from serving_samples import GOOD

pytestmark = [pytest.mark.attacks, pytest.mark.long, pytest.mark.ray]

CLIENT = "127.0.0.3"
REQUESTS, PER_SECOND = 100, 8.0


@pytest.fixture(scope="module")
def quiet(attacked: Any) -> float:
    """Return the p99 of a service without an attack."""
    ask(attacked, 20)  # warm
    return p99(ask(attacked, REQUESTS))


@pytest.mark.parametrize("attack", attackers.ATTACKS.values(), ids=attackers.ATTACKS)
def test_an_attacker_is_not_felt_at_another_address(attack: Callable[..., object], attacked: Any, quiet: float) -> None:
    gateway = attacked.gateway
    before = gateway.memory_info().rss
    door = attacked.grpc if attack in attackers.OVER_GRPC else attacked.http
    with highest_memory(gateway) as memory, under_attack(attack, door, attacked.token):
        attacked_p99 = p99(ask(attacked, REQUESTS))
        assert healthy(attacked)
    grown = (max(memory) - before) / MEGABYTE
    print(f"\n{attack.__name__}: p99 {quiet * 1000:.0f} ms, {attacked_p99 * 1000:.0f} ms; gateway {grown:+.0f} MB")
    assert attacked_p99 <= max(2 * quiet, quiet + 0.25)
    assert grown <= 150


def ask(attacked: Any, requests: int) -> list[float]:
    """Ask at a fixed pace from the client's address, each time on a new connection; gives the seconds of each."""
    seconds, begun = [], time.monotonic()
    for number in range(requests):
        due = begun + number / PER_SECOND
        time.sleep(max(0.0, due - time.monotonic()))
        connection = connect(attacked)
        headers = {"Content-Type": "image/tiff", "Authorization": f"Bearer {attacked.token}"}
        connection.request("POST", "/models/nuclei/predict", GOOD, headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        assert answer.status == 200, body[:300]
        seconds.append(time.monotonic() - due)
    return seconds


def connect(attacked: Any) -> http.client.HTTPConnection:
    host, port = attacked.http
    return http.client.HTTPConnection(host, port, timeout=60, source_address=(CLIENT, 0))


def p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100, method="inclusive")[98]


def healthy(attacked: Any) -> bool:
    connection = connect(attacked)
    connection.request("GET", "/health/ready")
    return connection.getresponse().status == 200


@contextmanager
def highest_memory(process: Any) -> Iterator[list[int]]:
    """Give a list to which the memory of a process is added every twentieth of a second, in bytes."""
    seen, done = [process.memory_info().rss], threading.Event()

    def look() -> None:
        while not done.wait(0.05):
            seen.append(process.memory_info().rss)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        done.set()
        looking.join()
