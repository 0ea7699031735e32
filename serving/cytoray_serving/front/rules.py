"""The rules of the front: set by the gateway, read by the servers that Ray Serve starts in the same process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

from cytoray_analysis.errors import CytorayError, ForbiddenError, OverloadedError, PlatformError, RequestError
from cytoray_serving.front.limits import FrontLimits

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class HeldBytes:
    """Counts the bytes of requests and answers in a gateway.

    Parameters
    ----------
    most
        Maximum number of bytes of all together. A single request is always accepted.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[object, int] = {}

    @property
    def bytes(self) -> int:
        """Bytes at this moment."""
        return sum(self._held.values())

    def hold(self, holder: object, size: int) -> None:
        """Add bytes for one request, or subtract them, without a limit: for an answer that exists already."""
        self._held[holder] = self._held.get(holder, 0) + size

    def add(self, holder: object, size: int) -> None:
        """Add bytes for one request.

        Raises
        ------
        OverloadedError
            All requests together exceed the limit, and this is not the only one.
        """
        others = self.bytes - self._held.get(holder, 0)
        if others and self.bytes + size > self._most:
            raise OverloadedError(
                f"expected at most {self._most} bytes of concurrent requests and answers, got {self.bytes + size}",
                field="body",
                hint="send the request again after the seconds in Retry-After",
            )
        self.hold(holder, size)

    @contextmanager
    def request(self) -> Iterator[object]:
        """Yield a counter for one request, and subtract all its bytes at the end."""
        holder = object()
        try:
            yield holder
        finally:
            self._held.pop(holder, None)


@dataclass(frozen=True)
class Rules:
    """The checks of a gateway before a request is read.

    Attributes
    ----------
    authorize
        Returns the caller for a value of ``Authorization`` (or None), or raises an error.
    largest_body
        Maximum size of the body with an image, in bytes.
    bodies
        Counts the bytes of all requests and answers.
    refused
        Called with each refusal, to count it.
    names
        Host names by which the service may be called; None for any. Without tokens, a page of another host in a browser
        on this machine must not reach the service (DNS rebinding).
    origins
        Origins of other pages that may use the service; see :mod:`cytoray_serving.front.browsers`.
    """

    authorize: Callable[[str | None], object]
    largest_body: int
    bodies: HeldBytes
    limits: FrontLimits = field(default_factory=FrontLimits)
    refused: Callable[[CytorayError], None] = lambda error: None
    names: frozenset[str] | None = None
    origins: frozenset[str] = frozenset()

    def require_own_name(self, host: str | None, origin: str | None) -> None:
        """Refuse a request to another host name, or from a page of another host.

        An address such as 10.0.0.7 is always accepted: an attacker can point a name at this machine, not an address.

        Raises
        ------
        ForbiddenError
            The request is refused.
        """
        if self.names is None:
            return
        called, page = _name_of(f"//{host or ''}"), _name_of(origin)
        for field_name, name, fine in (
            ("Host", called, called in self.names or _is_address(called)),
            ("Origin", page, page in self.names or page == called),
        ):
            if name is not None and not fine:
                raise ForbiddenError(
                    f"expected {field_name} to be one of {', '.join(sorted(self.names))}, got {name[:200]!r}",
                    field=field_name,
                    hint="add the name to public_names in the configuration of the service",
                )


def no_gateway() -> PlatformError:
    """Return the error of a proxy of Ray Serve without a gateway, which HAProxy uses when no gateway is left."""
    return PlatformError("the service is restarting", hint="try again in a few seconds")


def own_names(public: tuple[str, ...]) -> frozenset[str]:
    """Return the names of this machine, and the additional ones of the operator."""
    return frozenset((*_LOOPBACK, *(name.lower() for name in public)))


def _name_of(address: str | None) -> str | None:
    if address in (None, "", "//"):
        return None
    try:
        return (urlsplit(str(address)).hostname or str(address)).lower()
    except ValueError as error:
        raise RequestError(f"expected the name of a host, got {str(address)[:200]!r}", field="Host") from error


def _is_address(name: str | None) -> bool:
    try:
        ip_address(name or "")
    except ValueError:
        return False
    return True


_rules: list[Rules] = []


def set_rules(rules: Rules) -> None:
    """Set the rules of this process."""
    _rules[:] = [rules]


def current_rules() -> Rules | None:
    """Return the rules of this process; None if no gateway runs in it."""
    return _rules[0] if _rules else None
