"""Several real Ray nodes on this machine: each its own ``ray start``, where allowed in a network namespace of its own.

The first node is the head. It lives in the machine's own network with the driver, as the driver of a job does on a
cluster; the others are reached over a bridge::

    with ray_nodes(3, cpus=1) as nodes:  # a head with one CPU, two workers with one each
        ray.init(address=nodes.address)  # or cytoray train --on nodes.address, jobs submit --on nodes.dashboard
        nodes.kill(nodes.workers[0])     # all its processes at once, as when power is cut
        nodes.add()

Without the rights to make namespaces every node has an address of the loopback device instead.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from cytoray_services.free_ports import free_ports

_TAG, _STARTED, _SECONDS_TO_START = "CYTORAY_TEST_NODE", "Ray runtime started.", 90.0
_BIN = str(Path(sys.executable).parent)
_ENVIRONMENT = {
    "PATH": f"{_BIN}:{os.environ['PATH']}",
    "RAY_AUTH_MODE": "token",  # as ray.init() has it, which makes a token where there is none
    "RAY_USAGE_STATS_ENABLED": "0",
    # A node that died is noticed in about two seconds, not in half a minute.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


@dataclass(frozen=True)
class RayNode:
    """One node: its address, and the mark by which its processes are known."""

    ip: str
    mark: str
    namespace: str | None
    starter: subprocess.Popen[bytes] = field(repr=False)

    def processes(self) -> list[psutil.Process]:
        """Return what runs of this node, orphans included.

        By its session, for Ray's agents write their titles over their environment; and by its mark, for a process that
        has begun a session of its own.
        """
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
                if os.getsid(process.pid) == self.starter.pid or process.environ().get(_TAG) == self.mark:
                    found.append(process)
        return found


@dataclass
class RayNodes:
    """A cluster of this machine.

    Attributes
    ----------
    folder, network, environment, cpus
        What its nodes are made with.
    address, dashboard, client
        ``ip:port`` of the cluster, URL of the dashboard and job API, ``ray://`` address.
    nodes
        Those that are up, the head first.
    """

    folder: Path
    network: _Network
    environment: dict[str, str]
    cpus: int
    address: str = ""
    dashboard: str = ""
    client: str = ""
    nodes: list[RayNode] = field(default_factory=list)

    @property
    def workers(self) -> list[RayNode]:
        """All but the head."""
        return self.nodes[1:]

    def add(self, *, cpus: int | None = None, resources: str = "{}", blind_to: Path | None = None) -> RayNode:
        """Start one more node, custom `resources` as JSON, and return it when it is up.

        A node in a namespace can be `blind_to` a folder, as one is without the storage that the others share.
        """
        head = not self.nodes
        namespace, ip = self.network.add(outside=not head)
        mark = uuid.uuid4().hex
        names = ["dashboard-agent-listen-port", "dashboard-agent-grpc-port", "runtime-env-agent-port"]
        names += ["metrics-export-port"] + (["port", "dashboard-port", "ray-client-server-port"] if head else [])
        ports: dict[str, str | int] = dict(zip(names, free_ports(len(names)), strict=True))
        options: dict[str, str | int] = {"node-ip-address": ip, "num-gpus": 0, "object-store-memory": 2**28}
        options |= {"num-cpus": self.cpus if cpus is None else cpus, "resources": resources}
        options |= {"temp-dir": str(self.folder / mark[:4]), "min-worker-port": 0, "max-worker-port": 0}
        options |= ports
        if head:
            options["dashboard-host"] = ip
            self.address = f"{ip}:{ports['port']}"
            self.dashboard = f"http://{ip}:{ports['dashboard-port']}"
            self.client = f"ray://{ip}:{ports['ray-client-server-port']}"
        else:
            options["address"] = self.address
        command = ["ip", "netns", "exec", namespace] if namespace else []
        if blind_to:
            command += ["sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(blind_to)]
        command += [f"{_BIN}/ray", "start", "--block", *(["--head"] if head else [])]
        command += [f"--{name}={value}" for name, value in options.items()]
        # What this process's own cluster is called must not reach these nodes.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment = inherited | _ENVIRONMENT | {"RAY_ADDRESS": self.address} | self.environment | {_TAG: mark}
        log = self.folder / f"{mark[:4]}.log"
        with log.open("wb") as file:
            starter = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
        node = RayNode(ip, mark, namespace, starter)
        self.nodes.append(node)
        end = time.monotonic() + _SECONDS_TO_START
        while _STARTED not in (said := log.read_text()):
            if starter.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"a Ray node did not start:\n{said[-4000:]}")
            time.sleep(0.1)
        return node

    def kill(self, node: RayNode) -> None:
        """End all processes of a node at once."""
        processes = node.processes()
        for number in (signal.SIGSTOP, signal.SIGKILL):  # so that none can tell of the end of another
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
        node.starter.wait()
        while left := node.processes():
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=1.0)
        self.network.remove(node.namespace)
        self.nodes.remove(node)


class _Network:
    """A bridge and a namespace for each node behind it; or, where that is not allowed, the loopback device."""

    def __init__(self) -> None:
        self.name = f"cy{os.getpid() % 100_000}{random.randrange(100)}"  # interface names have 15 letters at most
        self.prefix = f"10.{random.randrange(64, 250)}.{random.randrange(250)}"
        self.namespaces: list[str] = []
        self.count = 0
        self.apart = os.geteuid() == 0 and shutil.which("ip") is not None and _ip(f"link add {self.name} type bridge")
        if self.apart:
            _ip(f"address add {self.prefix}.1/24 dev {self.name}", f"link set {self.name} up")

    def add(self, *, outside: bool) -> tuple[str | None, str]:
        """Return the namespace and the address of a new node."""
        self.count += 1
        if not self.apart:
            return None, f"127.0.0.{self.count + 1}"
        ip = f"{self.prefix}.{self.count}"
        if not outside:
            return None, ip
        space, device = f"{self.name}-{self.count}", f"{self.name}v{self.count}"
        self.namespaces.append(space)
        _ip(f"netns add {space}", f"link add {device} type veth peer name eth0 netns {space}")
        _ip(f"link set {device} master {self.name} up", f"-n {space} link set lo up")
        _ip(f"-n {space} address add {ip}/24 dev eth0", f"-n {space} link set eth0 up")
        _ip(f"-n {space} route add default via {self.prefix}.1")
        return space, ip

    def remove(self, namespace: str | None) -> None:
        if namespace in self.namespaces:
            self.namespaces.remove(namespace)
            _ip(f"netns delete {namespace}")

    def close(self) -> None:
        for namespace in list(self.namespaces):
            self.remove(namespace)
        if self.apart:
            _ip(f"link delete {self.name}")


@contextlib.contextmanager
def ray_nodes(count: int = 2, *, cpus: int = 1, environment: Mapping[str, str] | None = None) -> Iterator[RayNodes]:
    """Hold a cluster of `count` nodes, the head included, with `cpus` each; none of its processes outlives it.

    `environment` has variables for all processes of all nodes.
    """
    import ray
    from ray._private.authentication import authentication_token_setup

    authentication_token_setup.enable_token_auth_by_default()  # for drivers: in this process, and what it starts
    authentication_token_setup.ensure_token_if_auth_enabled()
    # Short, since the path of a Unix socket may have 107 bytes and Ray's own part takes about 75.
    folder = Path(tempfile.mkdtemp(prefix="cn", dir="/tmp"))
    nodes = RayNodes(folder, _Network(), dict(environment or {}), cpus)
    try:
        for _ in range(count):
            nodes.add()
        yield nodes
    finally:
        if ray.is_initialized() and ray.get_runtime_context().gcs_address == nodes.address:
            ray.shutdown()  # a driver whose head is gone would end this process
        for node in reversed(list(nodes.nodes)):
            nodes.kill(node)
        nodes.network.close()
        shutil.rmtree(folder, ignore_errors=True)


def _ip(*commands: str) -> bool:
    return all(subprocess.run(["ip", *words.split()], capture_output=True).returncode == 0 for words in commands)
