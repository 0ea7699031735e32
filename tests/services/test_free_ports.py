"""Ports that another process binds later."""

import json
import socket
import subprocess
import sys
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
        assert free_port() == pair[1]
        assert pair[0] not in {free_port() for _ in range(20)}


def test_no_port_is_chosen_twice_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the past: two services that started at the same moment drew the same port, and one of them ended."""
    ports = list(range(21_000, 21_040))
    monkeypatch.setattr(module, "_candidates", lambda: ports)
    program = (
        "from cytoray_services import free_ports as module; import sys; "
        f"module._candidates = lambda: {ports}; print(module.free_ports(15), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        theirs = json.loads(other.stdout.readline())
        ours = free_ports(10) + [free_port() for _ in range(5)]
        assert len(set(ours)) == 15
        assert not set(ours) & set(theirs)
        other.communicate()


def test_the_system_chooses_where_it_leaves_no_ports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = tmp_path / "range"
    whole.write_text("1024\t65535\n")
    monkeypatch.setattr(module, "_OUTGOING", whole)
    assert free_port() > 1023
