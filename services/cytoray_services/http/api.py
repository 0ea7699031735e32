"""The base of every HTTP application of Cytoray: error responses, liveness, metrics and background tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from pydantic import BaseModel, ConfigDict

from cytoray_services.http.docs_page import add_docs
from cytoray_services.http.errors import ErrorBody, add_error_handlers


class Live(BaseModel):
    """The process runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Literal["alive"] = "alive"


def begin_api(
    title: str,
    description: str,
    registry: CollectorRegistry,
    *,
    measure: Callable[[], Awaitable[None]] | None = None,
    background: Callable[[], Awaitable[None]] | None = None,
) -> FastAPI:
    """Return an application with ``/health/live``, ``/metrics`` and one body for all errors.

    Parameters
    ----------
    registry
        The registry of the metrics; the metrics of the process are added.
    measure
        Called before the metrics are returned.
    background
        Runs as long as the application.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = None if background is None else asyncio.ensure_future(background())
        yield
        if task is not None:
            task.cancel()

    api = FastAPI(
        title=title,
        description=description,
        version="1",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses={
            "4XX": {"model": ErrorBody, "description": "The request is invalid or not allowed."},
            "5XX": {"model": ErrorBody, "description": "The service failed."},
        },
    )
    add_error_handlers(api)
    add_docs(api)
    ProcessCollector(registry=registry)

    @api.get("/health/live", tags=["health"])
    async def live() -> Live:
        """Report that the process runs."""
        return Live()

    @api.get(
        "/metrics",
        tags=["health"],
        response_class=Response,
        responses={200: {"content": {CONTENT_TYPE_LATEST: {"schema": {"type": "string"}}}}},
    )
    async def prometheus() -> Response:
        """Return the metrics in Prometheus' text format."""
        if measure is not None:
            await measure()
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return api
