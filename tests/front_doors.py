"""An entrance before an application that tells what came through."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from cytoray_analysis.errors import CytorayError, UnauthorizedError
from cytoray_serving.front.entrance import Entrance
from cytoray_serving.front.limits import FrontLimits
from cytoray_serving.front.rules import HeldBytes, Rules

TOKEN = "Bearer sesame"  # noqa: S105 - of these tests
LARGE = np.random.default_rng(0).bytes(20 * 2**20)
SECRET = "of this instance"  # noqa: S105 - of these tests


def let_in(authorization: str | None) -> None:
    if authorization != TOKEN:
        raise UnauthorizedError("expected a token", hint="send one")


class Door:
    """A running entrance, and what it let through and refused."""

    def __init__(self, **changes: Any) -> None:
        self.refusals: list[CytorayError] = []
        self.read = self.streams = self.ended = 0
        self.held = HeldBytes(changes.pop("bodies", 2**30))
        self.rules = Rules(
            changes.pop("authorize", let_in),
            changes.pop("largest_body", 2**23),
            self.held,
            changes.pop("limits", FrontLimits()),
            self.refusals.append,
            changes.pop("names", None),
            changes.pop("origins", frozenset()),
        )
        self.address = ("", 0)
        self.url = ""

    def application(self) -> Any:
        api = FastAPI()

        @api.post("/models/{model}/predict")
        @api.post("/v2/models/{model}/infer")
        @api.post("/models/{model}/jobs")
        async def take(model: str, request: Request) -> dict[str, Any]:
            body = b""
            async for part in request.stream():
                body += part
                self.read += len(part)
            return {"bytes": len(body), "held": self.held.bytes, "coding": request.headers.get("content-encoding")}

        @api.get("/health/live")
        async def live() -> dict[str, str]:
            return {"status": "alive"}

        @api.get("/events")
        async def events(request: Request) -> StreamingResponse:
            async def pieces() -> AsyncIterator[bytes]:
                self.streams += 1
                try:
                    while True:
                        yield b"event"
                        await asyncio.sleep(0.05)
                finally:
                    self.streams -= 1

            return StreamingResponse(pieces(), media_type="text/event-stream")

        @api.get("/large")
        async def large() -> Response:
            return Response(LARGE)

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            await api(scope, receive, send)
            self.ended += 1

        return counted


@pytest.fixture
def open_door() -> Iterator[Callable[..., Door]]:
    """Give the function that starts an entrance in uvicorn, in a thread."""
    with _servers() as start:
        yield start


@contextmanager
def _servers() -> Iterator[Callable[..., Door]]:
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(*, secret: str | None = None, **changes: Any) -> Door:
        door = Door(**changes)
        entrance = Entrance(door.application(), secret=secret, rules=lambda: door.rules)
        server = uvicorn.Server(uvicorn.Config(entrance, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        running.append((server, thread))
        ends = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < ends, "uvicorn did not start"
            time.sleep(0.01)
        door.address = server.servers[0].sockets[0].getsockname()
        door.url = f"http://127.0.0.1:{door.address[1]}"
        return door

    yield start
    for server, thread in running:
        server.should_exit = True
        server.force_exit = True
        thread.join(20)


def ask_directly(application: Any, scope: dict[str, Any], messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ask an ASGI application without a server; gives what it sent."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    asyncio.run(application(scope, receive, send))
    return sent


def body_of(sent: list[dict[str, Any]]) -> Any:
    return json.loads(b"".join(message.get("body", b"") for message in sent))
