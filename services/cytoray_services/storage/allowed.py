"""The locations that requests may read and write: none, unless the operator lists them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

_ORIGIN = r"^https?://[^/?#@\s]+$"


class Allowed(BaseModel):
    """The locations that requests may read and write; none by default.

    Parameters
    ----------
    roots
        Folders for ``file://`` URIs, with symbolic links resolved.
    hosts
        Hosts for ``http`` and ``https`` URIs: ``host`` at the default port, or ``host:port``. A host with an internal
        address (private, loopback, link-local, metadata) is rejected unless it is listed by that address.
    private_hosts
        Hosts that are allowed and may have an internal address.
    buckets
        ``bucket`` or ``bucket/prefix`` for ``s3://`` URIs.
    refused_roots, refused_buckets
        Folders, and buckets or prefixes, that are not allowed although they are in an allowed one. The longest entry
        that contains a location counts.
    s3_endpoint
        Address of an S3 store other than Amazon's. Credentials come from the environment, as for boto3.
    origins
        Origins of other web pages that may use the service in a browser, such as ``https://lab.example.org``.
    largest_file
        Maximum bytes of one file, of one object of an OME-Zarr, and of one decompressed chunk.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    roots: tuple[Path, ...] = ()
    hosts: tuple[str, ...] = ()
    private_hosts: tuple[str, ...] = ()
    buckets: tuple[str, ...] = ()
    # Not stored if empty: an earlier release reads the records of jobs after a rollback.
    refused_roots: tuple[Path, ...] = Field(default=(), exclude_if=lambda entries: not entries)
    refused_buckets: tuple[str, ...] = Field(default=(), exclude_if=lambda entries: not entries)
    s3_endpoint: str | None = None
    origins: tuple[Annotated[str, StringConstraints(pattern=_ORIGIN)], ...] = Field(
        default=(), exclude_if=lambda entries: not entries
    )
    largest_file: int = Field(default=2**34, gt=0)
