"""Limits of the time and size of requests to the jobs service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from cytoray_analysis.errors import DeadlineError, RequestError
from cytoray_services.http.unpacking import unpacking_of

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

_HEADER_SECONDS = 10.0
_GRACE_SECONDS = 30.0
_SLOWEST = 16 * 1024  # bytes per second of a body, after the first half minute


class PromptHeaders(H11Protocol):
    """HTTP protocol of uvicorn with a timeout for the headers, which uvicorn does not have."""

    header_seconds = _HEADER_SECONDS
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timeout for the headers of the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Process received data; stop the timeout when the headers are complete, until the next request begins."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self._waiting is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timeout."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(self.header_seconds, self._too_late)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _too_late(self) -> None:
        self._waiting = None
        if self.conn.their_state is h11.IDLE:
            self.transport.close()


def counted(receive: Receive, most: int, declared: str | None, coding: str | None) -> Receive:
    """Return an iterator over the body of a request, counted and decompressed, with or without a declared length.

    Parameters
    ----------
    receive
        Returns the messages of ASGI.
    most
        Maximum number of bytes.
    declared
        The header ``Content-Length``, if any.
    coding
        The header ``Content-Encoding``.

    Raises
    ------
    RequestError
        The declared or actual length is too large, or the coding is unknown.
    ImageTooLargeError
        The decompressed body is too large.
    DeadlineError
        It is sent too slowly.
    """
    if declared is not None and (not (declared.isascii() and declared.isdigit()) or int(declared[:20]) > most):
        raise _too_large(most, declared[:20], field="Content-Length")
    unpacking = unpacking_of(coding, most)
    size, began = 0, time.monotonic()

    async def receive_counted() -> Message:
        nonlocal size
        ends = began + _GRACE_SECONDS + size / _SLOWEST
        try:
            async with asyncio.timeout(ends - time.monotonic()):
                message = await receive()
        except TimeoutError as error:
            raise DeadlineError(
                f"expected the body of the request at {_SLOWEST // 1024} kB per second or faster, got {size} bytes in "
                f"{time.monotonic() - began:.0f} s",
                field="body",
                hint="send it again",
            ) from error
        size += len(message.get("body", b""))
        if size > most:
            raise _too_large(most, f"{size} or more")
        if unpacking is not None and message["type"] == "http.request":
            plain = unpacking.unpack(message.get("body", b""), last=not message.get("more_body", False))
            return {**message, "body": plain}
        return message

    return receive_counted


def _too_large(most: int, got: str, field: str = "body") -> RequestError:
    return RequestError(f"expected a body of at most {most} bytes, got {got}", field=field)
