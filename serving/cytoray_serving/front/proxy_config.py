"""Completes the configuration that Ray Serve writes for HAProxy.

HAProxy 2.8, https://docs.haproxy.org/2.8/configuration.html. Serve's template is that of the pinned Ray; a line that is
missing there is an error, never a limit that silently does not hold.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from cytoray_analysis.errors import PlatformError
from cytoray_serving.front.limits import HEADER, Front

_MARK = "# completed by Cytoray\n"
_ADDRESSES = "cytoray_addresses"
_RETRY_AFTER = 1  # second

# What HAProxy itself answers with, in the body that all refusals have.
_REFUSALS = {
    429: ("OverloadedError", "expected fewer requests at a time from this address"),
    503: ("PlatformError", "the service is starting again"),
}
_REFUSAL = "503.http"


def completed(text: str, front: Front, folder: Path) -> str:
    """Return Serve's configuration with time limits, limits by address, the instance's secret, and our refusals.

    Parameters
    ----------
    text
        As Ray Serve wrote it; what is complete already is returned as it is.
    front
        Limits and secret.
    folder
        Where :func:`write_refusal` has put what HAProxy itself answers.

    Raises
    ------
    PlatformError
        The text is not what the pinned Ray writes.
    """
    if text.startswith(_MARK):
        return text
    limits = front.limits
    edits = (
        # The socket gives full control, and can be reached by every user of the machine.
        (r"mode 666 level admin", "mode 600 level admin"),
        (r"^( *)timeout client .*$", rf"\1timeout client {limits.idle_seconds}s"),
        (r"^( *)timeout http-keep-alive .*$", rf"\g<0>\n\1timeout http-request {limits.header_seconds}s"),
        (r"^( *)errorfile 502 .*\n *errorfile 503 .*\n *errorfile 504 .*$", _error_files(folder)),
        # Statistics are for this machine.
        (r"^( *)bind (?:\*|):(\d+)$", r"\1bind 127.0.0.1:\2"),
        (r"^(frontend (?:http|grpc)_frontend\n(?: *#.*\n)*( *)bind .*)$", rf"\1\n{_at_each_frontend(front)}"),
        # A path that nothing answers never gets here: there is one application, at /, and sometimes none yet.
        (r"^( *)http-request return status 404 .*$", rf"\1{_refuse(503)}"),
    )
    for pattern, replacement in edits:
        text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        if not count:
            raise PlatformError(
                f"expected {pattern!r} in the configuration that Ray Serve writes for HAProxy, and it is not there",
                hint="install the version of Ray that Cytoray pins: pip install -c constraints.txt 'cytoray[serve]'",
            )
    if front.host is not None:
        text = re.sub(
            r"^(frontend (?:http|grpc)_frontend\n(?: *#.*\n)* *bind )\S+(:\d+)",
            rf"\g<1>{front.host}\2",
            text,
            flags=re.MULTILINE,
        )
    # Of calls over gRPC for which there is no application yet; the template has them only then.
    text = text.replace(
        'hdr grpc-status 5 hdr grpc-message "Application ', 'hdr grpc-status 14 hdr grpc-message "Application '
    )
    return f"{_MARK}{text}\nbackend {_ADDRESSES}\n    stick-table type ipv6 size 100k expire 10m store conn_cur\n"


def write_refusal(folder: Path) -> None:
    """Write what HAProxy answers where no gateway can."""
    body = _body(503)
    head = ["HTTP/1.1 503 Service Unavailable", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    head += ["Connection: close", f"Retry-After: {_RETRY_AFTER}", "", body]
    (folder / _REFUSAL).write_text("\r\n".join(head), encoding="ascii", newline="")


def _error_files(folder: Path) -> str:
    return "\n".join(rf"\1errorfile {status} {folder}/{_REFUSAL}" for status in (502, 503, 504))


def _at_each_frontend(front: Front) -> str:
    """Return what is asked of every connection and request, over HTTP and gRPC."""
    limits = front.limits
    lines = ["# Cytoray"]
    lines += [f"acl cytoray_trusted src {' '.join(limits.trusted_proxies) or '255.255.255.255'}"]
    if limits.connections is not None:
        most = f"conn_cur gt {limits.connections}"
        lines += [
            f"tcp-request connection track-sc0 src table {_ADDRESSES} if !cytoray_trusted",
            f"tcp-request connection reject if !cytoray_trusted {{ sc0_{most} }}",
            f"http-request track-sc1 hdr_ip(X-Forwarded-For,-1) table {_ADDRESSES} "
            "if cytoray_trusted { req.hdr(X-Forwarded-For) -m found }",
            f"{_refuse(429)} if cytoray_trusted {{ sc1_{most} }}",
        ]
    lines += ["http-request set-header X-Forwarded-For %[src] if !cytoray_trusted"]
    if front.secret is not None:
        lines += [f"http-request set-header {HEADER} {front.secret}"]
    return "\n".join(f"    {line}" for line in lines).replace("\\", r"\\")


def _refuse(status: int) -> str:
    quoted = json.dumps(_body(status))
    return (
        f"http-request return status {status} content-type application/json string {quoted} "
        f"hdr Retry-After {_RETRY_AFTER}"
    )


def _body(status: int) -> str:
    error, message = _REFUSALS[status]
    return json.dumps({"error": error, "message": message, "field": None, "hint": "try again in a few seconds"})
