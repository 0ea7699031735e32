"""What a request over HTTP passes before an application, or Ray Serve, reads its body.

In this order: the instance's secret, the name of the host, the token; then the body, counted and unpacked as it comes,
and the answer, counted until it is taken. Who sends or takes too slowly is cut off.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers

from cytoray_analysis.errors import CytorayError, DeadlineError, ForbiddenError, ImageTooLargeError
from cytoray_services.http_errors import refusal_headers
from cytoray_serving.front.limits import HEADER
from cytoray_serving.front.rules import Rules, no_gateway
from cytoray_serving.front.unpacking import Unpacking, unpacking_of
from cytoray_serving.open_inference.messages import error_text

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_SERVE = "/-/"  # HAProxy's questions about health, which Serve answers
_OPEN = ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/metrics", "/docs", "/openapi.json")
_LARGEST_JSON = 2**20
_LARGEST_TENSORS_IN_JSON = 2**24
_GRACE_SECONDS = 30.0
_PIECE = 2**18  # bytes of an answer that are handed on at a time


class Entrance:
    """ASGI middleware.

    Parameters
    ----------
    application
        What is behind it.
    secret
        What the proxy adds to requests as :data:`~cytoray_serving.front.limits.HEADER`; None checks nothing.
    rules
        Gives the rules of this process; where there are none, no gateway is here, and nothing passes.
    """

    def __init__(self, application: Application, *, secret: str | None, rules: Callable[[], Rules | None]) -> None:
        self._application = application
        self._secret = secret
        self._rules = rules

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Let a request in, or refuse it."""
        if scope["type"] != "http" or scope["path"].startswith(_SERVE):
            await self._application(scope, receive, send)
            return
        rules = self._rules()
        try:
            self._require(scope, rules)
        except CytorayError as error:
            if rules is not None:
                rules.refused(error)
            await _refuse(scope, send, error)
            return
        assert rules is not None  # _require has refused  # noqa: S101
        with rules.bodies.request() as holder:
            await _Passage(scope, receive, send, rules, holder).run(self._application)

    def _require(self, scope: MutableMapping[str, Any], rules: Rules | None) -> None:
        headers = Headers(scope=scope)
        if self._secret is not None and not hmac.compare_digest(
            headers.get(HEADER, "").encode(), self._secret.encode()
        ):
            raise ForbiddenError("expected a request through the service's own address", hint="ask at --port")
        if rules is None:
            raise no_gateway()
        rules.require_own_name(headers.get("host"), headers.get("origin"))
        if scope["path"] not in _OPEN:
            rules.authorize(headers.get("authorization"))


class _Passage:
    """One request on its way in, and its answer on its way out."""

    def __init__(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send, rules: Rules, holder: object
    ) -> None:
        self._scope, self._receive, self._send = dict(scope), receive, send
        self._rules, self._holder = rules, holder
        self._limit = _largest(scope, rules)
        self._unpacking: Unpacking | None = None
        self._began = time.monotonic()
        self._received = 0
        self._size = 0
        self._come = False
        self._answering = False
        self._error: CytorayError | None = None
        self._head = scope["method"] == "HEAD"

    async def run(self, application: Application) -> None:
        try:
            self._prepare()
            await application(self._scope, self.receive, self.send)
        except CytorayError as error:
            self._error = self._error or error
        except asyncio.CancelledError:
            if self._error is None:
                raise
        if self._error is not None and not self._answering:
            self._rules.refused(self._error)
            await _refuse(self._scope, self._send, self._error)

    def _prepare(self) -> None:
        headers = Headers(scope=self._scope)
        declared = headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and int(declared[:20]) > self._limit:
            raise self._too_large(int(declared[:20]))
        self._unpacking = unpacking_of(headers.get("content-encoding"), self._limit)
        if self._unpacking is not None:
            dropped = (b"content-encoding", b"content-length")
            self._scope["headers"] = [pair for pair in self._scope["headers"] if pair[0].lower() not in dropped]
        if self._head:
            self._scope["method"] = "GET"

    async def receive(self) -> Message:
        """Give the next part of the body, counted and unpacked."""
        if self._error is not None:
            return {"type": "http.disconnect"}
        try:
            return await self._next()
        except CytorayError as error:
            self._error = error
            raise

    async def _next(self) -> Message:
        if self._come:
            return await self._receive()
        message: Message = await self._within(self._receive(), self._received, "the body of the request", self._began)
        if message["type"] != "http.request":
            return message
        part = message.get("body", b"")
        self._received += len(part)
        more = bool(message.get("more_body", False))
        if self._unpacking is not None:
            part = self._unpacking.unpack(part, last=not more)
        self._count(len(part))
        self._come = not more
        return {"type": "http.request", "body": part, "more_body": more}

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > self._limit:
            raise self._too_large(self._size)
        self._rules.bodies.add(self._holder, size)

    async def send(self, message: Message) -> None:
        """Send a part of the answer; it is held until the caller has taken it."""
        if self._error is not None and not self._answering:
            return  # the refusal takes the place of whatever the application makes of it
        self._answering = True
        if message["type"] == "http.response.body":
            body = b"" if self._head else message.get("body", b"")
            await self._send_body(body, more=bool(message.get("more_body", False)))
            return
        await self._send(message)

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        """Send in pieces: a server takes what it is given at once, and waits for the caller before it takes more."""
        began, left = time.monotonic(), len(body)
        self._rules.bodies.hold(self._holder, left)
        try:
            for start in range(0, len(body), _PIECE) or (0,):
                piece = body[start : start + _PIECE]
                message = {"type": "http.response.body", "body": piece, "more_body": more or left > len(piece)}
                await self._within(self._send(message), start, "the answer", began)
                self._rules.bodies.hold(self._holder, -len(piece))
                left -= len(piece)
        finally:
            self._rules.bodies.hold(self._holder, -left)

    async def _within(self, step: Awaitable[Any], size: int, what: str, began: float) -> Any:
        slowest = self._rules.limits.slow_kilobytes * 1024
        try:
            async with asyncio.timeout(began + _GRACE_SECONDS + size / slowest - time.monotonic()):
                return await step
        except TimeoutError as error:
            raise DeadlineError(
                f"expected {what} at {slowest / 1024:g} kB a second or faster after {_GRACE_SECONDS:g} seconds",
                field="body",
                hint="send smaller images, or a job with the image's URI",
            ) from error

    def _too_large(self, size: int) -> ImageTooLargeError:
        return ImageTooLargeError(
            f"expected a body of at most {self._limit} bytes, got {size} or more",
            field="body",
            hint="cut the image, or use cytoray predict without --url, which reads it piece by piece",
        )


def _largest(scope: MutableMapping[str, Any], rules: Rules) -> int:
    """Return the bytes of the largest body at an address: images are large, all else is small."""
    place = scope["path"].rpartition("/")[2]
    plain = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower() == "application/json"
    if place == "infer":
        return min(rules.largest_body, _LARGEST_TENSORS_IN_JSON) if plain else rules.largest_body
    if place == "predict" and not plain:
        return rules.largest_body
    return min(rules.largest_body, _LARGEST_JSON)


async def _refuse(scope: MutableMapping[str, Any], send: Send, error: CytorayError) -> None:
    described = {"error": error_text(error)} if scope["path"].startswith("/v2/") else error.describe()
    body = json.dumps(described).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    headers |= {name.lower(): value for name, value in refusal_headers(error).items()}
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
