"""Forwards requests to the jobs service, so that a page has training runs and predictions at one address."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator
from functools import cache
from typing import Any

import httpx
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse

from cytoray_analysis.errors import MissingFileError, PlatformError
from cytoray_services.http.errors import ErrorBody

_JOBS = re.compile(r"jobs(/[A-Za-z0-9_-]+)*")
_SENT = ("authorization", "content-type", "accept", "last-event-id")
_RETURNED = ("content-type", "location", "retry-after", "cache-control", "etag", "www-authenticate")
_CONNECT_SECONDS, _READ_SECONDS = 5.0, 60.0  # a stream of events sends a comment at least every quarter of a minute


def jobs_service_routes(url: str | None, *, guard: Any) -> APIRouter:
    """Return the routes below ``/jobs-service``.

    Parameters
    ----------
    url
        Address of the jobs service; None if there is none.
    guard
        The FastAPI dependency that admits callers; the jobs service checks the same token again.
    """
    router = APIRouter(tags=["jobs service"], dependencies=[Depends(guard)])

    described: dict[str, Any] = {
        "response_class": Response,
        "responses": {
            404: {"model": ErrorBody, "description": "There is no jobs service, or it has no such address."},
            503: {"model": ErrorBody, "description": "The jobs service does not answer."},
        },
    }

    @router.get("/jobs-service/{path:path}", **described)
    @router.post("/jobs-service/{path:path}", **described)
    @router.delete("/jobs-service/{path:path}", **described)
    async def forward(path: str, request: Request) -> Response:
        """Forward a request to the jobs service, such as /jobs-service/jobs to its address /jobs."""
        if url is None:
            raise MissingFileError(
                "this service has no jobs service",
                hint="the operator sets jobs.url in the configuration of the service",
            )
        if not _JOBS.fullmatch(path):
            raise MissingFileError(f"expected an address such as jobs or jobs/ID, got {path[:80]!r}", field="path")
        client = httpx.AsyncClient(
            timeout=httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS), verify=_certificates(), trust_env=False
        )
        sent = client.build_request(
            request.method,
            f"{url.rstrip('/')}/{path}",
            params=request.query_params,
            content=await request.body(),
            headers=[(name, value) for name, value in request.headers.raw if name.decode("latin-1").lower() in _SENT],
        )
        try:
            answer = await client.send(sent, stream=True)
        except httpx.HTTPError as error:
            await client.aclose()
            raise PlatformError(
                f"the jobs service does not answer: {error or type(error).__name__}",
                hint="tell the operator: jobs.url in the configuration of the service names it",
            ) from error
        except BaseException:
            await client.aclose()
            raise
        headers = {name: value for name in _RETURNED if (value := answer.headers.get(name)) is not None}
        if "location" in headers:
            headers["location"] = f"/jobs-service{headers['location']}"
        return StreamingResponse(_pieces(client, answer), answer.status_code, headers)

    return router


@cache
def _certificates() -> ssl.SSLContext:
    return ssl.create_default_context()


async def _pieces(client: httpx.AsyncClient, answer: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the parts of an answer as they arrive; a lost connection ends it, as it would end that of the caller."""
    try:
        async for piece in answer.aiter_bytes():
            yield piece
    finally:
        await answer.aclose()
        await client.aclose()
