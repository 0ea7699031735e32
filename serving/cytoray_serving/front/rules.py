"""Who may pass the front of a gateway, and with how much: set by the gateway, read by what Serve starts beside it."""

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
    """Counts the bytes of requests and answers that a gateway holds, as they come and go.

    Parameters
    ----------
    most
        Bytes of all together. One request alone may always go on, however large it is.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[object, int] = {}

    @property
    def bytes(self) -> int:
        """What is held now."""
        return sum(self._held.values())

    def hold(self, holder: object, size: int) -> None:
        """Count so many bytes more, or less, for one request, without a limit: of an answer, which is there already."""
        self._held[holder] = self._held.get(holder, 0) + size

    def add(self, holder: object, size: int) -> None:
        """Hold so many bytes more for one request.

        Raises
        ------
        OverloadedError
            All requests together hold as much as they may, and others hold some of it.
        """
        others = self.bytes - self._held.get(holder, 0)
        if others and self.bytes + size > self._most:
            raise OverloadedError(
                f"expected at most {self._most} bytes of requests and answers at a time, got {self.bytes + size}",
                field="body",
                hint="send the same request again after the seconds in Retry-After",
            )
        self.hold(holder, size)

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Hold the bytes of one request that has come whole; see :meth:`add`."""
        with self.request() as holder:
            self.add(holder, size)
            yield

    @contextmanager
    def request(self) -> Iterator[object]:
        """Give what stands for one request, and let go of all that it holds at the end."""
        holder = object()
        try:
            yield holder
        finally:
            self._held.pop(holder, None)


@dataclass(frozen=True)
class Rules:
    """What a gateway asks of every request before it is read.

    Attributes
    ----------
    authorize
        Given the value of ``Authorization`` (None for none), raises what speaks against the caller.
    largest_body
        Bytes of the body with an image.
    bodies
        Counts the bytes of all requests and answers.
    refused
        Is given each refusal, to count it.
    names
        Hosts by which the service may be called; None for any. Where no token is needed, a page of a foreign host in
        the browser of this machine must not reach it (DNS rebinding).
    """

    authorize: Callable[[str | None], object]
    largest_body: int
    bodies: HeldBytes
    limits: FrontLimits = field(default_factory=FrontLimits)
    refused: Callable[[CytorayError], None] = lambda error: None
    names: frozenset[str] | None = None

    def require_own_name(self, host: str | None, origin: str | None) -> None:
        """Refuse a request that was sent to another name than the service's, or from a page of another host.

        An address, such as 10.0.0.7, is always accepted: an attacker can point a name at this machine, not an address.

        Raises
        ------
        ForbiddenError
            It was.
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
    """Return what a proxy of Serve without a gateway answers: HAProxy asks it where no gateway is left."""
    return PlatformError("the service is starting again", hint="try again in a few seconds")


def own_names(public: tuple[str, ...]) -> frozenset[str]:
    """Return the names of this machine, and those that the operator adds."""
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
    """Return the rules of this process; None where no gateway runs in it."""
    return _rules[0] if _rules else None
