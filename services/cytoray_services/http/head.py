"""HEAD for every address with GET: the same response without a body (RFC 9110, section 9.3.2)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class HeadAsGet:
    """ASGI middleware that handles HEAD as GET without the body.

    An application that streams its response receives a disconnect after the headers.
    """

    def __init__(self, app: Application) -> None:
        self._application = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._application(scope, receive, send)
            return
        begun = False

        async def receive_until_begun() -> Message:
            return {"type": "http.disconnect"} if begun else await receive()

        async def send_beginning(message: Message) -> None:
            nonlocal begun
            if begun:
                return
            begun = True
            await send(message)
            await send({"type": "http.response.body", "body": b""})

        await self._application({**scope, "method": "GET"}, receive_until_begun, send_beginning)
