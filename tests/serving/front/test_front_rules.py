"""How many bytes may be held, and by which names a service may be called."""

import gzip
import zlib
from contextlib import nullcontext, suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.errors import ForbiddenError, ImageTooLargeError, OverloadedError, PlatformError, RequestError
from cytoray_services.http.unpacking import unpacking_of
from cytoray_serving.front.limits import HOST, LIMITS, SECRET, Front, FrontLimits
from cytoray_serving.front.rules import HeldBytes, Rules, own_names
from cytoray_serving.open_inference.messages import compress

LIMIT = 1000


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60)), max_size=40))
def test_no_more_is_held_than_may_be_but_for_one_alone(steps: list[tuple[int, int]]) -> None:
    held = HeldBytes(100)
    amounts = dict.fromkeys(range(4), 0)
    for holder, size in steps:
        others = sum(amounts.values()) - amounts[holder]
        if others and sum(amounts.values()) + size > 100:
            with pytest.raises(OverloadedError):
                held.add(holder, size)
        else:
            held.add(holder, size)
            amounts[holder] += size
        assert held.bytes == sum(amounts.values())


def test_what_a_request_held_is_let_go_at_its_end() -> None:
    held = HeldBytes(100)
    with held.request() as first:
        held.add(first, 300)
        with pytest.raises(OverloadedError), held.request() as second:
            held.add(second, 1)
    assert held.bytes == 0


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "127.0.0.1", "[::1]:9", "hub.example:443", "10.0.0.7:80", "[fe80::1]", None, ""],
)
def test_a_service_answers_to_its_own_names(host: str | None) -> None:
    rules(own_names(("Hub.example",))).require_own_name(host, None)


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.0.0.7.evil.example", "localhost@evil.example", "["]
)
def test_a_service_answers_to_no_other_name(host: str) -> None:
    with pytest.raises((ForbiddenError, RequestError)):
        rules(own_names(())).require_own_name(host, None)
    rules(None).require_own_name(host, "http://evil.example")  # a token is asked for there


@pytest.mark.parametrize(
    ("host", "origin", "fine"),
    [
        ("10.0.0.7:8000", "http://10.0.0.7:8000", True),
        ("localhost:8000", "http://localhost:3000", True),
        ("localhost:8000", "http://10.0.0.7", False),
        ("localhost:8000", "null", False),
    ],
)
def test_a_page_of_another_host_is_reported_by_its_origin(host: str, origin: str, fine: bool) -> None:
    with nullcontext() if fine else pytest.raises(ForbiddenError, match="Origin"):
        rules(own_names(())).require_own_name(host, origin)


def rules(names: frozenset[str] | None) -> Rules:
    return Rules(lambda authorization: None, 1, HeldBytes(1), names=names)


@given(st.binary(max_size=400), st.sampled_from(["gzip", "deflate", "GZIP", "identity", None]), st.integers(1, 50))
def test_packed_bodies_come_back_in_any_pieces(body: bytes, coding: str | None, piece: int) -> None:
    packed, name = compress(body, coding)
    assert unpacked(packed, name, piece) == body
    with suppress(RequestError):
        unpacked(body, coding, piece)


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_no_more_unfolds_than_may(pack: Any) -> None:
    coding = "gzip" if pack is gzip.compress else "deflate"
    assert len(unpacked(pack(bytes(LIMIT)), coding, 10)) == LIMIT
    with pytest.raises(ImageTooLargeError):
        unpacked(pack(bytes(LIMIT + 1)), coding, 10)
    with pytest.raises(RequestError):
        unpacked(pack(b"body") + b"more", coding, 10)


def unpacked(body: bytes, coding: str | None, piece: int) -> bytes:
    unpacking = unpacking_of(coding, LIMIT)
    if unpacking is None:
        return body
    pieces = [body[start : start + piece] for start in range(0, len(body), piece)] or [b""]
    return b"".join(unpacking.unpack(one, last=at == len(pieces) - 1) for at, one in enumerate(pieces))


def test_processes_learn_of_the_front_from_their_environment() -> None:
    front = Front(FrontLimits(connections=None, trusted_proxies=("10.1.2.3/8",)), "secret", "::1")
    assert set(front.variables()) == {LIMITS, SECRET, HOST}
    assert Front.of(front.variables()) == front
    assert front.limits.trusted_proxies == ("10.0.0.0/8",)
    assert Front.of({}) == Front(FrontLimits())


@pytest.mark.parametrize("secret", ["two words", "line\n", "quote'", "%[src]"])
def test_a_secret_that_a_configuration_cannot_hold_is_refused(secret: str) -> None:
    with pytest.raises(PlatformError, match="CYTORAY_FRONT_SECRET"):
        Front.of({SECRET: secret})


def test_a_balancer_that_is_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match="balancer"):
        FrontLimits(trusted_proxies=("balancer",))
