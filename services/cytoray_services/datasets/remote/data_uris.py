"""Locations of data: a folder, ``file:///folder``, ``s3://bucket/prefix``, or ``pvc://claim/path`` on Kubernetes."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cytoray_analysis.errors import DatasetError, MissingFileError

CLAIMS = Path("/data")
"""Where the volume claims with data are mounted in a job."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_CLAIM = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,62}")
_HINT = "use a folder, file:///folder, s3://bucket/prefix or pvc://claim/path"


def path_or_uri(text: str | Path) -> Path | str:
    """Return a path or a URI.

    Returns
    -------
    pathlib.Path or str
        A path for local data, a URI without a slash at its end for ``s3://`` and ``pvc://``.

    Raises
    ------
    DatasetError
        The URI is of another kind, or incomplete.
    """
    if isinstance(text, Path) or not _SCHEME.match(text):
        return Path(text)
    parts = urlsplit(text)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or len(parts.path) < 2:
            raise DatasetError(f"expected file:///folder, got {text!r}", field="data.root", hint=_HINT)
        return Path(unquote(parts.path))
    known = {"s3": _BUCKET, "pvc": _CLAIM}.get(parts.scheme)
    if known is None:
        raise DatasetError(f"expected a supported location of data, got {text!r}", field="data.root", hint=_HINT)
    first, _, rest = text.partition("://")[2].rstrip("/").partition("/")
    inside = rest.split("/") if rest else []
    if not known.fullmatch(first):
        what = "a bucket's name of 3 to 63 letters and digits" if parts.scheme == "s3" else "a claim's name"
        raise DatasetError(f"expected {what} in {text!r}, got {first!r}", field="data.root", hint=_HINT)
    if any(part in ("", ".", "..") for part in inside):
        shape = "s3://bucket/prefix" if parts.scheme == "s3" else "pvc://claim/path"
        raise DatasetError(f"expected {shape} without empty parts and '..', got {text!r}", field="data.root")
    return "/".join((f"{parts.scheme}://{first}", *inside))


def absolute_or_uri(text: str | Path) -> Path | str:
    """Return an absolute path or a URI.

    Raises
    ------
    DatasetError
        See :func:`path_or_uri`.
    """
    where = path_or_uri(text)
    return where if isinstance(where, str) else where.expanduser().absolute()


def folder_of_claim(uri: str) -> Path:
    """Return where a volume claim is mounted in the pods of a job.

    Raises
    ------
    MissingFileError
        It is not mounted here.
    """
    claim, _, inside = uri.partition("://")[2].partition("/")
    if not (CLAIMS / claim).is_dir():
        raise MissingFileError(
            f"{uri} is the volume claim {claim!r} of a cluster, which is not mounted here",
            field="data.root",
            hint=f"submit the recipe with --on kubernetes to a platform with the claim, or mount it at "
            f"{CLAIMS / claim}",
        )
    return CLAIMS / claim / inside
