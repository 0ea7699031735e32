"""Completes the configuration that Ray Serve writes for HAProxy.

HAProxy 2.8, https://docs.haproxy.org/2.8/configuration.html. The template is the one of the pinned Ray. A missing line
is an error, so that no limit is silently ineffective.
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
# Always answered, so that a load balancer or a kubelet does not consider the service dead.
_CALLS = "/inference.GRPCInferenceService"
_HEALTH = (
    *("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"),
    *(f"{_CALLS}/ServerLive", f"{_CALLS}/ServerReady"),
)

# Responses of HAProxy itself, with the body of all refusals.
_REFUSALS = {
    429: ("OverloadedError", "expected fewer requests at a time, or fewer wrong tokens, from this address"),
    503: ("PlatformError", "the service is restarting"),
}
_REFUSAL, _GRPC_REFUSAL = "503.http", "unavailable.http"


def completed(text: str, front: Front, folder: Path) -> str:
    """Return the configuration of Ray Serve with timeouts, limits per address, the secret and our refusals.

    Parameters
    ----------
    text
        The configuration of Ray Serve; a complete one is returned unchanged.
    front
        Limits and secret.
    folder
        Folder of the responses of :func:`write_refusals`.

    Raises
    ------
    PlatformError
        The text is not from the pinned version of Ray.
    """
    if text.startswith(_MARK):
        return text
    limits = front.limits
    edits = (
        # The socket gives full control, and every user of the machine can reach it.
        (r"mode 666 level admin", "mode 600 level admin"),
        (r"^( *)timeout client .*$", rf"\1timeout client {limits.idle_seconds}s"),
        (r"^( *)timeout http-keep-alive .*$", rf"\g<0>\n\1timeout http-request {limits.header_seconds}s"),
        (r"^( *)errorfile 502 .*\n *errorfile 503 .*\n *errorfile 504 .*$", _error_files(folder, _REFUSAL)),
        # Statistics are only for this machine.
        (r"^( *)bind (?:\*|):(\d+)$", r"\1bind 127.0.0.1:\2"),
        (r"^(frontend (?:http|grpc)_frontend\n(?: *#.*\n)*( *)bind .*)$", rf"\1\n{_at_each_frontend(front)}"),
        # An unknown path never gets here: there is one application at /, or none yet.
        (r"^( *)http-request return status 404 .*$", rf"\1{_refuse(503)}"),
    )
    for pattern, replacement in edits:
        text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        if not count:
            raise PlatformError(
                f"expected {pattern!r} in the HAProxy configuration of Ray Serve, got none",
                hint="install the version of Ray that Cytoray pins: pip install -c constraints.txt 'cytoray[serve]'",
            )
    if front.host is not None:
        text = re.sub(
            r"^(frontend (?:http|grpc)_frontend\n(?: *#.*\n)* *bind )\S+(:\d+)",
            rf"\g<1>{front.host}\2",
            text,
            flags=re.MULTILINE,
        )
    # Calls over gRPC end with a gRPC status, also without an application. The template has these lines only with
    # gRPC, or without an application.
    text = re.sub(
        r"^( *http-request return status 200 content-type application/grpc )hdr grpc-status 5 "
        r'hdr grpc-message ".*?"( if .*)?$',
        rf'\1hdr grpc-status 14 hdr grpc-message "{_REFUSALS[503][1]}" hdr retry-after {_RETRY_AFTER}\2',
        text,
        flags=re.MULTILINE,
    )
    text = re.sub(r"^( *)option tcp-check$", rf"\g<0>\n{_error_files(folder, _GRPC_REFUSAL)}", text, flags=re.MULTILINE)
    table = "stick-table type ipv6 size 100k expire 10m store conn_cur,gpc0,gpc0_rate(1s)"
    return f"{_MARK}{text}\nbackend {_ADDRESSES}\n    {table}\n"


def has_gateways(text: str) -> bool:
    """Whether a configuration names a gateway."""
    return re.search(r"^backend http-", text, flags=re.MULTILINE) is not None


def write_refusals(folder: Path) -> None:
    """Write the responses of HAProxy if no gateway can answer, over HTTP and gRPC."""
    body = _body(503)
    head = ["HTTP/1.1 503 Service Unavailable", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    head += ["Connection: close", f"Retry-After: {_RETRY_AFTER}", "", body]
    (folder / _REFUSAL).write_text("\r\n".join(head), encoding="ascii", newline="")
    head = ["HTTP/1.1 200 OK", "content-type: application/grpc", "content-length: 0", "grpc-status: 14"]
    head += [f"grpc-message: {_REFUSALS[503][1]}", f"retry-after: {_RETRY_AFTER}"]
    head += [f"grpc-retry-pushback-ms: {_RETRY_AFTER * 1000}", "", ""]
    (folder / _GRPC_REFUSAL).write_text("\r\n".join(head), encoding="ascii", newline="")


def _error_files(folder: Path, refusal: str) -> str:
    return "\n".join(rf"\1errorfile {status} {folder}/{refusal}" for status in (502, 503, 504))


def _at_each_frontend(front: Front) -> str:
    """Return the rules for every connection and request, over HTTP and gRPC."""
    limits = front.limits
    forwarded = "cytoray_trusted { req.hdr(X-Forwarded-For) -m found }"
    lines = ["# Cytoray"]
    lines += [f"acl cytoray_trusted src {' '.join(limits.trusted_proxies) or '255.255.255.255'}"]
    lines += [f"acl cytoray_health path {' '.join(_HEALTH)}"]
    lines += [f"tcp-request connection track-sc0 src table {_ADDRESSES} if !cytoray_trusted"]
    if limits.connections is not None:
        lines += [f"tcp-request connection reject if !cytoray_trusted {{ sc0_conn_cur gt {limits.connections} }}"]
    lines += [f"http-request track-sc1 hdr_ip(X-Forwarded-For,-1) table {_ADDRESSES} if {forwarded}"]
    if limits.connections is not None:
        lines += [f"{_refuse(429)} if cytoray_trusted {{ sc1_conn_cur gt {limits.connections} }} !cytoray_health"]
    if limits.wrong_tokens is not None:
        # Refusing is cheap here, but not in Python. The gRPC status 16 stands for 401.
        for counter, whose in (("0", "!cytoray_trusted"), ("1", "cytoray_trusted")):
            too_many = f"{{ sc{counter}_gpc0_rate gt {limits.wrong_tokens} }}"
            lines += [f"{_refuse(429)} if {whose} {too_many} !cytoray_health"]
            for refusal in ("status 401", "res.hdr(grpc-status) 16"):
                lines += [f"http-response sc-inc-gpc0({counter}) if {whose} {{ {refusal} }}"]
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
