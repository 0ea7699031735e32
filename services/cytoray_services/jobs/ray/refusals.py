"""Errors for what a Ray cluster cannot do, before a request or after its refusal."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

from cytoray_analysis.errors import (
    CytorayError,
    ForbiddenError,
    JobNotFoundError,
    PlatformError,
    RequestError,
    UnauthorizedError,
)

_PORTS = {"http": 80, "https": 443, "ray": 10001}
_CONNECT_SECONDS = 10.0


def require_same_ray(client: Any, on: str) -> None:
    """Refuse a cluster with another version of Ray."""
    import ray

    theirs = client._server_ray_version  # set by its constructor
    if theirs != ray.__version__:
        raise PlatformError(
            f"expected a cluster with Ray {ray.__version__}, as installed here, got Ray {theirs} at {on}",
            field="--on",
            hint=f"use a cluster whose image has Ray {ray.__version__}",
        )


def require_reachable(address: str) -> None:
    """Fail early: Ray's client waits for minutes for a machine that does not answer."""
    parts = urlsplit(address)
    try:
        port = parts.port or _PORTS[parts.scheme]
        socket.create_connection((parts.hostname, port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise PlatformError(
            f"no Ray cluster answers at {address}: {error.strerror or error}",
            field="--on",
            hint="check that this is the address of Ray's dashboard (port 8265), and that this machine can reach it",
        ) from error


def require_absolute(data: tuple[str, ...]) -> None:
    """Refuse data with paths relative to this folder."""
    for place in data:
        if "://" not in place and not place.startswith("/"):
            raise RequestError(
                f"expected data that the cluster can read, got the relative path {place}",
                field="data.root",
                hint="use s3://BUCKET/PATH, or an absolute path that exists on all nodes",
            )


def refused(on: str, text: str) -> CytorayError:
    """Return the error of a cluster that requires another token."""
    if "Authentication required" not in text:
        return ForbiddenError(f"the Ray cluster at {on} refuses the token", field="RAY_AUTH_TOKEN")
    hint = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to the token of the cluster"
    return UnauthorizedError(f"the Ray cluster at {on} requires a token", field="--on", hint=hint)


def unknown(job_id: str, reason: str = "the cluster has no such job") -> JobNotFoundError:
    """Return the error of a job that does not exist."""
    return JobNotFoundError(
        f"expected the id of a job, got {job_id!r}: {reason}", field="id", hint="cytoray jobs list lists all jobs"
    )
