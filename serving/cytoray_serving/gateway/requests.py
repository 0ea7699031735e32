"""Handles callers that disconnect, for all HTTP interfaces."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

T = TypeVar("T")

_UNWATCHED_SECONDS = 0.5  # shorter requests are not watched, because watching takes a tenth of a gateway's time


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Wait for work, and cancel it if the caller disconnects.

    Raises
    ------
    ClientDisconnect
        The caller disconnected.
    """
    task = asyncio.ensure_future(work)
    tasks: set[asyncio.Future[Any]] = {task}
    try:
        await asyncio.wait(tasks, timeout=_UNWATCHED_SECONDS)
        if not task.done():
            tasks.add(asyncio.ensure_future(_disconnected(request)))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        if task.cancelled():
            raise ClientDisconnect
        return await task
    finally:
        for one in tasks:
            one.cancel()


async def _disconnected(request: Request) -> None:
    """Return when the caller disconnects; the body has been read, so no other message comes."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
