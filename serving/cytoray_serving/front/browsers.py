"""What protects people who use the service in a browser: the origins of pages, and headers of every response.

A page of another origin can send a request in the name of its visitor. One that changes something is refused, unless
the operator lists the origin (:attr:`cytoray_services.storage.allowed.Allowed.origins`); such a page may also read the
responses (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers

from cytoray_analysis.errors import ForbiddenError

_SAFE = frozenset(("GET", "HEAD", "OPTIONS"))  # RFC 9110, section 9.2.1
_DEFAULT_PORTS = {"http": 80, "https": 443}
_NO_PAGE = "default-src 'none'; frame-ancestors 'none'"
_METHODS, _ONE_DAY = "GET, HEAD, POST, PUT, DELETE", "86400"
_READ = "*, Location, ETag, Retry-After, Server-Timing, Content-Disposition, WWW-Authenticate"


def require_own_page(method: str, host: str | None, origin: str | None, allowed: frozenset[str]) -> None:
    """Refuse a request that changes something from a page of another origin.

    Parameters
    ----------
    allowed
        Origins of other pages that may.

    Raises
    ------
    ForbiddenError
        The request is refused.
    """
    if method in _SAFE or not origin or origin in allowed:
        return
    if _same_place(origin, host or ""):
        return
    raise ForbiddenError(
        f"expected a request from a page of this service, got one from {origin[:200]!r}",
        field="Origin",
        hint="list the origin of the page, such as https://lab.example.org, in allowed.origins in the configuration of "
        "the service",
    )


def asks_first(method: str, headers: Headers, allowed: frozenset[str]) -> bool:
    """Whether this is the question of a browser before a request from a page that is allowed."""
    return method == "OPTIONS" and headers.get("origin") in allowed and "access-control-request-method" in headers


def added_headers(headers: Headers, allowed: frozenset[str]) -> dict[str, str]:
    """Return the headers for the response to a request, which do not replace those of the application.

    A response is never a page, is never drawn inside another page, and its type is what it says.
    """
    added = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": _NO_PAGE, "Referrer-Policy": "no-referrer"}
    if allowed:
        added["Vary"] = "Origin"
    origin = headers.get("origin")
    if origin in allowed:
        added |= {"Access-Control-Allow-Origin": str(origin), "Access-Control-Expose-Headers": _READ}
        if "access-control-request-method" in headers:
            asked = headers.get("access-control-request-headers", "")
            added |= {
                "Access-Control-Allow-Methods": _METHODS,
                "Access-Control-Allow-Headers": asked or "Authorization",
                "Access-Control-Max-Age": _ONE_DAY,
            }
    return added


def _same_place(origin: str, host: str) -> bool:
    """Whether an origin has the host and the port of an address."""
    try:
        page = urlsplit(origin)
        place = urlsplit(f"//{host}")
        port = _DEFAULT_PORTS.get(page.scheme)
        return page.hostname is not None and (page.hostname, page.port or port) == (place.hostname, place.port or port)
    except ValueError:  # no address
        return False
