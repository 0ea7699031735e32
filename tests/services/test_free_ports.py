"""Ports that another process binds later."""

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from cytoray_services import free_ports as module
from cytoray_services.free_ports import free_port, free_ports


def test_ports_differ_and_can_be_bound() -> None:
    ports = free_ports(50)
    assert len(set(ports)) == 50
    with ExitStack() as held:
        for port in ports:
            held.enter_context(socket.create_server(("127.0.0.1", port)))


def test_no_outgoing_connection_takes_a_chosen_port() -> None:
    """A fault of the past: HAProxy found its port taken by a connection that began after the port was chosen."""
    low, high = (int(word) for word in Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    chosen = {free_port() for _ in range(200)}
    assert not chosen & set(range(low, high + 1))


def test_a_port_in_use_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        pair = taken.getsockname()[1], free.getsockname()[1]
        free.close()
        monkeypatch.setattr(module, "_candidates", lambda: list(pair))
        assert {free_port() for _ in range(20)} == {pair[1]}


def test_the_system_chooses_where_it_leaves_no_ports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = tmp_path / "range"
    whole.write_text("1024\t65535\n")
    monkeypatch.setattr(module, "_OUTGOING", whole)
    assert free_port() > 1023
