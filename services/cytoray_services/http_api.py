"""What every HTTP application of Cytoray begins with: one form of errors, and what runs beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from cytoray_services.http_errors import ErrorBody, add_error_handlers

if TYPE_CHECKING:
    from fastapi import FastAPI


def begin_api(title: str, description: str, *, background: Callable[[], Awaitable[None]] | None = None) -> FastAPI:
    """Return an application without routes, whose errors all have one body.

    Parameters
    ----------
    background
        Runs for as long as the application does.
    """
    from fastapi import FastAPI

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
        docs_url="/docs",
        redoc_url=None,
        lifespan=lifespan,
        responses={
            "4XX": {"model": ErrorBody, "description": "The request cannot be answered as it is."},
            "5XX": {"model": ErrorBody, "description": "The service failed."},
        },
    )
    add_error_handlers(api)
    return api
