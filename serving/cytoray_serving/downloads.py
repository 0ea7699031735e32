"""Requests to other hosts on behalf of a caller: only to hosts that are listed, never to addresses inside.

Who may name an address for a service to fetch may try to reach what only the service can reach: a database, the
metadata address of a cloud. Therefore the host must be listed; its name is resolved once, every address that it has
is judged, and the connection goes to one of these very addresses, so that a second answer of the name server changes
nothing. Redirects start over.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

import httpcore

from cytoray_analysis.errors import ForbiddenError, ImageTooLargeError, MissingFileError, PlatformError, RequestError

_PORTS = {"http": 80, "https": 443}
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 10.0
# A download may take so long, and longer by what has come: who sends one byte now and then is not waited for.
_DOWNLOAD_SECONDS = 30.0
_SLOWEST_BYTES_PER_SECOND = 2**18
_MOST_REDIRECTS = 5
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class Hosts:
    """Which hosts may be asked.

    Parameters
    ----------
    listed
        Hosts that may be asked, ``host`` (at the usual port) or ``host:port``. One that is written as an address may
        be a private one.
    private
        Hosts that may be asked and may have private addresses.
    """

    listed: tuple[str, ...] = ()
    private: tuple[str, ...] = ()

    def check(self, url: str, *, field: str | None = None) -> None:
        """Raise :class:`ForbiddenError` unless the host of an address is listed, and RequestError where it has none."""
        host, port = _host_and_port(urlsplit(url), url, field)
        if not _names(self.listed + self.private, host, port, urlsplit(url).scheme):
            raise ForbiddenError(
                f"expected a host that this service may ask, got {host}:{port}",
                field=field,
                hint="the operator lists hosts in the service's configuration (allowed.hosts)",
            )

    def may_be_private(self, url: str) -> bool:
        """Whether the host of an address may lie inside: it is listed as such, or literally by its address."""
        parts = urlsplit(url)
        host, port = _host_and_port(parts, url, None)
        literal = _names(self.listed, host, port, parts.scheme) and _is_address(host)
        return literal or _names(self.private, host, port, parts.scheme)


@dataclass(frozen=True)
class Reply:
    """The head of a response, and its body as it comes."""

    status: int
    length: int | None
    parts: Iterable[bytes]


def without_secrets(url: str) -> str:
    """Return an address as messages may show it: without user, query and fragment."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


@contextmanager
def ask(method: str, url: str, hosts: Hosts, *, headers: dict[str, str] | None = None) -> Iterator[Reply]:
    """Send a request without a body and follow redirects, each checked like the first.

    Parameters
    ----------
    headers
        Beside the usual ones, such as ``Range``.

    Raises
    ------
    ForbiddenError
        A host is not listed or has an address that may not be asked.
    MissingFileError
        The host says that there is nothing (404, 410).
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


def bounded(parts: Iterable[bytes], limit: int, source: str) -> Iterator[bytes]:
    """Pass on what comes, and raise :class:`ImageTooLargeError` once it is more than `limit` bytes."""
    received = 0
    for part in parts:
        received += len(part)
        if received > limit:
            raise too_large(source, received, limit)
        yield part


def too_large(source: str, size: int, limit: int) -> ImageTooLargeError:
    """Say that a file is larger than what is read of one."""
    return ImageTooLargeError(
        f"{source} has {size} bytes or more, more than the {limit} that are read of one file",
        hint="store it as OME-Zarr, which is read chunk by chunk",
    )


class _CheckedNetwork(httpcore.SyncBackend):
    """Resolves a name once, refuses addresses inside, and connects to what it resolved."""

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
    """A connection that ends when too little has come in its time."""

    def __init__(self, stream: httpcore.NetworkStream, begun: float) -> None:
        self._stream, self._begun, self._received = stream, begun, 0

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = self._begun + _DOWNLOAD_SECONDS + self._received / _SLOWEST_BYTES_PER_SECOND - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout(f"{self._received} bytes came in {time.monotonic() - self._begun:.0f} s")
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
    if isinstance(address, ipaddress.IPv6Address):  # forms that carry an IPv4 address inside
        inner += [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if all(one is None or (one.is_global and not one.is_multicast) for one in inner):
        return
    raise ForbiddenError(
        f"{host} has the address {text}, which lies inside the network of the service",
        hint="the operator may list the host in the service's configuration (allowed.private_hosts)",
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
            hint="the service may not send credentials of callers",
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
    """Take an address apart once, so that what was checked and what is asked cannot be read differently."""
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
        raise PlatformError(f"{shown} answered with {status}", hint="check whether it can be fetched without a login")


@contextmanager
def _reported(url: str) -> Iterator[None]:
    try:
        yield
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, UnicodeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise PlatformError(
            f"{without_secrets(url)} could not be fetched: {reason}", hint="try again when the host answers"
        ) from error
