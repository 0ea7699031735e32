"""What is fetched from web addresses: only from listed hosts, from no address inside, bounded in bytes and time."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from cytoray_analysis.errors import CytorayError, ForbiddenError, ImageTooLargeError, MissingFileError, PlatformError
from cytoray_services.storage import downloads
from cytoray_services.storage.allowed import Allowed
from cytoray_services.storage.downloads import Hosts, ask
from cytoray_services.storage.locate import locate
from serving_samples import noise, tiff_bytes
from web_servers import Quiet, serving

PIXELS = noise(40, 50)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a folder with an image."""
    (tmp_path / "a.tif").write_bytes(tiff_bytes(PIXELS))
    return tmp_path


@pytest.fixture
def web(root: Path) -> Iterator[str]:
    """Serve the folder over HTTP."""
    yield from serving(partial(Quiet, directory=str(root)))


@pytest.mark.parametrize(
    ("entries", "uri", "fine"),
    [
        (("example.org",), "https://example.org/a", True),
        (("example.org",), "http://EXAMPLE.org:80/a", True),
        (("example.org",), "https://example.org:8443/a", False),
        (("example.org:8443",), "https://example.org:8443/a", True),
        (("example.org:8443",), "https://example.org/a", False),
        (("example.org",), "https://www.example.org/a", False),
        (("example.org",), "https://example.org.evil.net/a", False),
        (("example.org",), "http://evil.net/example.org", False),
        (("10.0.0.1",), "http://167772161/a", False),
    ],
)
def test_only_listed_hosts_may_be_named(entries: tuple[str, ...], uri: str, fine: bool) -> None:
    if fine:
        locate(uri, Allowed(hosts=entries))
    else:
        with pytest.raises(ForbiddenError):
            locate(uri, Allowed(hosts=entries))


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "100.100.100.200", "0.0.0.0", "224.0.0.1", "::1",
     "fe80::1", "fd00:ec2::254", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1"],
)  # fmt: skip
def test_a_listed_name_with_an_address_inside_is_not_asked(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    public = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14", 80))
    answers = [public, (family, socket.SOCK_STREAM, 6, "", (address, 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("a connection was made"))
    with pytest.raises(ForbiddenError, match=f"has the address {re.escape(address)} in the network of the service"):
        locate("http://images.example.org/a.tif", Allowed(hosts=("images.example.org",))).read_bytes()


def test_a_name_is_resolved_once_and_that_very_address_is_asked(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = int(web.partition(":")[2])
    asked = []

    def resolve(host: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    connected = []
    real = socket.create_connection

    def connect(address: tuple[str, int], *arguments: Any, **options: Any) -> socket.socket:
        connected.append(address[0])
        monkeypatch.setattr(socket, "getaddrinfo", original)
        return real(address, *arguments, **options)

    original = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    name = f"images.example.org:{port}"
    assert locate(f"http://{name}/a.tif", Allowed(private_hosts=(name,))).read_bytes() == tiff_bytes(PIXELS)
    assert asked == ["images.example.org"]
    assert connected == ["127.0.0.1"]


class _Redirecting(BaseHTTPRequestHandler):
    targets: ClassVar[dict[str, str]] = {}

    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("Location", self.targets[self.path])
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def redirecting() -> Iterator[str]:
    """Run a server that redirects."""
    yield from serving(_Redirecting)


def test_redirects_are_followed_only_to_hosts_that_are_listed(web: str, redirecting: str) -> None:
    _Redirecting.targets = {
        "/good": f"http://{web}/a.tif",
        "/bad": f"http://{web}/a.tif",
        "/loop": "/loop",
        "/file": "file:///etc/passwd",
    }
    assert locate(f"http://{redirecting}/good", Allowed(hosts=(redirecting, web))).read_bytes() == tiff_bytes(PIXELS)
    with pytest.raises(ForbiddenError, match=web):
        locate(f"http://{redirecting}/bad", Allowed(hosts=(redirecting,))).read_bytes()
    with pytest.raises(PlatformError, match="redirects"):
        locate(f"http://{redirecting}/loop", Allowed(hosts=(redirecting,))).read_bytes()
    with pytest.raises(CytorayError):
        locate(f"http://{redirecting}/file", Allowed(hosts=(redirecting,), roots=(Path("/"),))).read_bytes()


class _Endless(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"x" * (1 if self.path == "/slow" else 2**16))
                time.sleep(0.02 if self.path == "/slow" else 0)
        except OSError:
            pass

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def endless() -> Iterator[str]:
    """Run a server whose answers do not end."""
    yield from serving(_Endless)


@pytest.mark.slow
def test_a_download_is_bounded_in_bytes_and_in_time(endless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = Allowed(hosts=(endless,), largest_file=2**20)
    with pytest.raises(ImageTooLargeError):
        locate(f"http://{endless}/fast", allowed).read_bytes()
    monkeypatch.setattr(downloads, "_DOWNLOAD_SECONDS", 0.5)
    begun = time.monotonic()
    with pytest.raises(PlatformError):
        locate(f"http://{endless}/slow", allowed).read_bytes()
    assert time.monotonic() - begun < 5


def test_messages_hold_no_signatures(web: str) -> None:
    uri = f"http://{web}/none.tif?X-Amz-Signature=secret"
    with pytest.raises(MissingFileError) as caught:
        locate(uri, Allowed(hosts=(web,))).read_bytes()
    assert "secret" not in str(caught.value.describe())


def test_web_addresses_are_read_only(web: str) -> None:
    image = locate(f"http://{web}/a.tif", Allowed(hosts=(web,)))
    for use in (lambda: image.write_bytes(b""), image.delete, lambda: image.zarr_store(writing=True)):
        with pytest.raises(ForbiddenError):
            use()


def test_a_request_carries_no_header_of_the_environment(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with ask("GET", f"http://{web}/a.tif", Hosts((web,))) as reply:
        assert b"".join(reply.parts) == tiff_bytes(PIXELS)


class _Ranges(Quiet):
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:  # noqa: N802 - the name that the server looks for
        span = self.headers.get("Range")
        if span is None:
            return super().do_GET()
        self.asked.append(span)
        body = Path(self.translate_path(self.path)).read_bytes()
        begin, _, end = span.removeprefix("bytes=").rpartition("-")
        part = body[int(begin) : int(end or -2) + 1 or None] if begin else body[-int(end) :]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)
        return None


@pytest.mark.parametrize("handler", [Quiet, _Ranges])
def test_parts_of_a_shard_are_fetched_by_range(root: Path, handler: type[Quiet]) -> None:
    import zarr

    servers = serving(partial(handler, directory=str(root)))
    web = next(servers)
    array = zarr.create_array(root / "s.zarr", shape=(40, 50), chunks=(8, 10), shards=(40, 50), dtype="u1")
    array[:] = PIXELS
    store = locate(f"http://{web}/s.zarr", Allowed(hosts=(web,))).zarr_store(writing=False)
    assert np.array_equal(zarr.open_array(store, mode="r")[3:9, 4:40], PIXELS[3:9, 4:40])
    assert (len(_Ranges.asked) > 1) == (handler is _Ranges)
    assert next(servers, None) is None
