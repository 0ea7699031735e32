"""From a URI to its storage location."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from cytoray_analysis.errors import CytorayError, RequestError
from cytoray_services.storage.allowed import Allowed
from cytoray_services.storage.files import FileLocation
from cytoray_services.storage.location import StorageLocation
from cytoray_services.storage.s3 import S3Location
from cytoray_services.storage.web import WebLocation

_KINDS: dict[str, type[StorageLocation]] = {
    "file": FileLocation,
    "s3": S3Location,
    "http": WebLocation,
    "https": WebLocation,
}
_PLAIN_URI = re.compile(r"[a-z][a-z0-9+.-]*://[^\x00-\x1f\x7f\\]*", re.IGNORECASE)


def locate(uri: str, allowed: Allowed, *, field: str = "uri") -> StorageLocation:
    """Return the location of a URI after a check of permissions, without accessing it.

    Parameters
    ----------
    uri
        ``file:///folder/name``, ``s3://bucket/key`` (keys not percent-encoded) or ``https://host/path``.
    field
        The field of the URI, for messages.

    Raises
    ------
    RequestError
        It is not such a URI, or contains credentials.
    ForbiddenError
        The location is not allowed.
    """
    hint = "such as file:///data/a.tif, s3://bucket/a.tif or https://host/a.tif"
    if len(uri) > 4096 or not _PLAIN_URI.fullmatch(uri):
        raise RequestError(f"expected a URI, got {_shortened(uri)!r}", field=field, hint=hint)
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise RequestError(f"expected a URI, got {_shortened(uri)!r}", field=field, hint=hint) from error
    if parts.scheme not in _KINDS:
        raise RequestError(f"expected file, s3, http or https, got {parts.scheme}://", field=field, hint=hint)
    if "@" in parts.netloc:
        raise RequestError(
            "expected a URI without user and password, got one with them",
            field=field,
            hint="credentials come from the environment of the service",
        )
    path = uri.partition("://")[2] if parts.scheme == "s3" else unquote(parts.path)
    name = path.rstrip("/").rpartition("/")[2] or parts.netloc
    found = _KINDS[parts.scheme](uri, allowed, name)
    try:
        found.check()
    except CytorayError as error:
        raise type(error)(error.message, field=field, hint=error.hint) from error
    return found


def _shortened(uri: str) -> str:
    # The text before an @ may contain a password.
    return uri.rpartition("@")[2].partition("?")[0][:100]
