"""URIs for display, without secrets."""

from __future__ import annotations

import re

CUT = "…"
"""The replacement for removed secrets."""

# What separates addresses from the text around them; all else may be part of a signature.
_ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]{0,31})://(?P<rest>[^\s\"'<>\x00]+)", re.IGNORECASE)
_WEB = ("http", "https", "ws", "wss")
_NAMED = r"[\w.%-]*(?:sig|token|secret|passw|pwd|credential|key|auth)[\w.%-]*="
# Of addresses of databases and stores, and of paths that are written without their host.
_SECRET = re.compile(_NAMED, re.IGNORECASE)
_PARAMETER = re.compile(rf"(?<=[?&;])({_NAMED})[^&;\s\"'<>#…][^&;\s\"'<>#]*", re.IGNORECASE)
_TOKEN = re.compile(r"\bcyt_[0-9a-f]{12}_[\w-]+")


def without_secrets(text: str) -> str:
    """Remove secrets from all addresses in a text.

    Removed are user and password, query and fragment of web addresses (presigned URLs have their signature there),
    those of other schemes if a parameter has the name of a secret, and tokens of Cytoray. Keys of buckets may contain a
    question mark, so text that is not a parameter is kept.

    Parameters
    ----------
    text
        One address, or any text such as a message or a log.
    """
    if "://" in text:
        text = _ADDRESS.sub(_cut, text)
    if "=" in text:
        text = _PARAMETER.sub(rf"\g<1>{CUT}", text)
    return _TOKEN.sub(f"cyt_{CUT}", text) if "cyt_" in text else text


def _cut(found: re.Match[str]) -> str:
    scheme, rest = found["scheme"], found["rest"]
    web = scheme.lower() in _WEB
    place = _without_user(rest)
    parts = re.split(r"([?#])", place, maxsplit=1)
    if len(parts) > 1 and (web or _SECRET.search(parts[2])):
        place = f"{parts[0]}?{CUT}"
    return f"{scheme}://{place}"


def _without_user(rest: str) -> str:
    """Return the part after user and password; an unencoded password may contain a slash."""
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in host:
        return host.rpartition("@")[2] + rest[len(host) :]
    port = host.rpartition("]")[2].partition(":")[2]
    if port and not port.isdigit() and "@" in rest:
        return rest.rpartition("@")[2]
    return rest
