"""Free TCP ports for the servers that this process starts.

A port is chosen here and bound by another process, seconds later. If the kernel chooses it (``bind`` to port 0), it
lies in the range of outgoing connections, and any connection of this machine can take it in between. So ports are
drawn from a range that the kernel does not use for them. Several processes that start servers at the same moment could
draw the same port: each keeps the ports that it has drawn, by a name that only one process of the machine can have.
"""

from __future__ import annotations

import errno
import secrets
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

_RANGE = range(20_000, 30_000)
"""Above the ports of Ray's workers (10002 to 19999), below those of Serve's replicas and of Kubernetes (from 30000)."""

_kept: list[socket.socket] = []
"""Until this process ends."""

_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TRIES = 100


def free_port(host: str = "127.0.0.1") -> int:
    """Return a free TCP port of an address of this machine."""
    return free_ports(1, host)[0]


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Return `count` different free TCP ports of an address of this machine.

    Raises
    ------
    OSError
        The address is not one of this machine.
    """
    with ExitStack() as held:
        return [_bound(held.enter_context(socket.socket(family_of(host))), host) for _ in range(count)]


def family_of(host: str) -> socket.AddressFamily:
    """Return whether an address is one of IPv4 or IPv6."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _bound(listener: socket.socket, host: str) -> int:
    ports = _candidates()
    for _ in range(_TRIES if ports else 0):
        port = secrets.choice(ports)
        if not _keep(port):
            continue
        try:
            listener.bind((host, port))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
        else:
            return port
    listener.bind((host, 0))
    return int(listener.getsockname()[1])


def _keep(port: int) -> bool:
    """Keep a port for this process; return whether no process has it.

    The name is an abstract socket of Linux, which exists as long as its process. Other systems have none.
    """
    if not sys.platform.startswith("linux"):
        return True
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0cytoray-port-{port}")
    except OSError as error:
        name.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    _kept.append(name)
    return True


def _candidates() -> list[int]:
    outgoing = range(49_152, 65_536)  # the dynamic ports of RFC 6335, where a system does not say its own
    if _OUTGOING.exists():
        low, high = (int(word) for word in _OUTGOING.read_text().split())
        outgoing = range(low, high + 1)
    return [port for port in _RANGE if port not in outgoing]
