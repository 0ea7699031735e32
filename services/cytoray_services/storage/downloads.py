"""Requests to other hosts on behalf of a caller: only to listed hosts, never to internal addresses.

A caller who can make a service download an address may try to reach what only the service can reach: a database, the
metadata address of a cloud. Therefore the host must be listed; its name is resolved once, each of its addresses is
checked, and the connection goes to one of the checked addresses, so that a second answer of the name server has no
effect. Each redirect is checked again.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

import httpcore

from cytoray_analysis.errors import ForbiddenError, MissingFileError, PlatformError, RequestError
from cytoray_analysis.uris import without_secrets
from cytoray_services.storage.bounds import too_large

_PORTS = {"http": 80, "https": 443}
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 10.0
# The time limit of a download, which grows with the received bytes: a host that sends single bytes times out.
_DOWNLOAD_SECONDS = 30.0
_SLOWEST_BYTES_PER_SECOND = 2**18
_MOST_REDIRECTS = 5
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class Hosts:
    """The allowed hosts.

    Parameters
    ----------
    listed
        Allowed hosts, ``host`` (at the default port) or ``host:port``. A host that is listed by its address may be
        private.
    private
        Allowed hosts that may have private addresses.
    """

    listed: tuple[str, ...] = ()
    private: tuple[str, ...] = ()

    def check(self, url: str, *, field: str | None = None) -> None:
        """Raise :class:`ForbiddenError` unless the host of an address is listed, and RequestError without a host."""
        host, port = _host_and_port(urlsplit(url), url, field)
        if not _names(self.listed + self.private, host, port, urlsplit(url).scheme):
            raise ForbiddenError(
                f"expected an allowed host of this service, got {host}:{port}",
                field=field,
                hint="the operator lists hosts in the configuration of the service (allowed.hosts)",
            )

    def may_be_private(self, url: str) -> bool:
        """Whether the host of an address may be internal: it is listed as such, or by its address."""
        parts = urlsplit(url)
        host, port = _host_and_port(parts, url, None)
        literal = _names(self.listed, host, port, parts.scheme) and _is_address(host)
        return literal or _names(self.private, host, port, parts.scheme)


@dataclass(frozen=True)
class Reply:
    """The headers of a response, and its body as a stream."""

    status: int
    length: int | None
    parts: Iterable[bytes]


@contextmanager
def ask(method: str, url: str, hosts: Hosts, *, headers: dict[str, str] | None = None) -> Iterator[Reply]:
    """Send a request without a body and follow redirects, with the same checks for each.

    Parameters
    ----------
    headers
        Additional headers, such as ``Range``.

    Raises
    ------
    ForbiddenError
        A host is not listed, or has an internal address.
    MissingFileError
        The host does not have the file (404, 410).
    PlatformError
        The host does not answer in time, or with an error.
    """
    for _ in range(_MOST_REDIRECTS):
        hosts.check(url)
        backend = _CheckedNetwork(private=hosts.may_be_private(url))
        sent: dict[bytes | str, bytes | str] = {"Host": urlsplit(url).netloc, "Accept-Encoding": "identity"}
        sent.update(headers or {})
        with _reported(url), httpcore.ConnectionPool(network_backend=backend, retries=0) as pool:
            request = pool.stream(
                method,
                _exactly(url),
                headers=sent,
                extensions={"timeout": {"connect": _CONNECT_SECONDS, "read": _READ_SECONDS, "write": _READ_SECONDS}},
            )
            with request as response:
                target = _header(response, b"location") if response.status in (301, 302, 303, 307, 308) else None
                if target is None:
                    _check_status(response.status, url)
                    yield Reply(response.status, _length(response), response.iter_stream())
                    return
        url = urljoin(url, target)
    raise PlatformError(f"{without_secrets(url)} redirects more than {_MOST_REDIRECTS} times")


def uncounted(size: int) -> None:
    """Count no bytes."""


def bounded(
    parts: Iterable[bytes], limit: int, source: str, count: Callable[[int], None] = uncounted
) -> Iterator[bytes]:
    """Yield and count the pieces, and raise :class:`ImageTooLargeError` above `limit` bytes."""
    received = 0
    for part in parts:
        received += len(part)
        if received > limit:
            raise too_large(source, received, limit)
        count(len(part))
        yield part


class _CheckedNetwork(httpcore.SyncBackend):
    """Resolves a name once, rejects internal addresses, and connects to a checked address."""

    def __init__(self, *, private: bool) -> None:
        super().__init__()
        self._private = private

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the name cannot be resolved: {error}") from error
        addresses = [str(entry[4][0]) for entry in found]
        if not self._private:
            for address in addresses:
                _check_public(host, address)
        failure: Exception | None = None
        for address in addresses[:3]:
            try:
                stream = super().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _TimedStream(stream, time.monotonic())
        raise failure or httpcore.ConnectError("the name has no address")


class _TimedStream(httpcore.NetworkStream):
    """A connection that times out if it is too slow."""

    def __init__(self, stream: httpcore.NetworkStream, begun: float) -> None:
        self._stream, self._begun, self._received = stream, begun, 0

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = self._begun + _DOWNLOAD_SECONDS + self._received / _SLOWEST_BYTES_PER_SECOND - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout(f"received {self._received} bytes in {time.monotonic() - self._begun:.0f} s")
        part = self._stream.read(max_bytes, min(left, timeout or _READ_SECONDS))
        self._received += len(part)
        return part

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, timeout), self._begun)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _check_public(host: str, text: str) -> None:
    address = ipaddress.ip_address(text.partition("%")[0])
    inner: list[Any] = [address]
    if isinstance(address, ipaddress.IPv6Address):  # forms that contain an IPv4 address
        inner += [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if all(one is None or (one.is_global and not one.is_multicast) for one in inner):
        return
    raise ForbiddenError(
        f"expected a public host, {host} has the address {text} in the network of the service",
        hint="the operator can list the host in the configuration of the service (allowed.private_hosts)",
    )


def _host_and_port(parts: SplitResult, url: str, field: str | None) -> tuple[str, int]:
    try:
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError as error:
        raise RequestError(f"expected an address with a host, got {without_secrets(url)!r}", field=field) from error
    if not host or port is None:
        raise RequestError(f"expected an http or https address, got {without_secrets(url)!r}", field=field)
    if "@" in parts.netloc:
        raise RequestError(
            "expected an address without user and password, got one with them",
            field=field,
            hint="the service does not send credentials of callers",
        )
    return host.rstrip("."), port


def _names(entries: tuple[str, ...], host: str, port: int, scheme: str) -> bool:
    plain = f"[{host}]" if ":" in host else host
    names = {f"{plain}:{port}"} | ({plain, host} if port == _PORTS.get(scheme) else set())
    return any(entry.lower() in names for entry in entries)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _exactly(url: str) -> httpcore.URL:
    """Parse an address once, so that the check and the request use the same parts."""
    parts = urlsplit(url)
    host, port = _host_and_port(parts, url, None)
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    if parts.query:
        target += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
    return httpcore.URL(scheme=parts.scheme.encode(), host=host.encode("idna"), port=port, target=target.encode())


def _header(response: httpcore.Response, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in response.headers if key.lower() == name), None)


def _length(response: httpcore.Response) -> int | None:
    text = _header(response, b"content-length") or ""
    return int(text) if text.isascii() and text.isdigit() else None


def _check_status(status: int, url: str) -> None:
    shown = without_secrets(url)
    if status in (404, 410):
        raise MissingFileError(f"{shown} does not exist ({status})", hint="check the address")
    if not 200 <= status < 300:
        raise PlatformError(f"{shown} answered with {status}", hint="check that it can be downloaded without a login")


@contextmanager
def _reported(url: str) -> Iterator[None]:
    try:
        yield
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, UnicodeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise PlatformError(f"{without_secrets(url)} cannot be downloaded: {reason}", hint="try again later") from error
