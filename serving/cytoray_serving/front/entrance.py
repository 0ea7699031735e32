"""The checks of an HTTP request before an application, or Ray Serve, reads its body.

In this order: the secret of the instance, the host name, the origin of a page, the token. Then the body is counted and
decompressed while it is received, and the answer is counted until it is sent. Connections that send or read too slowly
are closed.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers

from cytoray_analysis.errors import CytorayError, DeadlineError, ForbiddenError, ImageTooLargeError
from cytoray_services.http.errors import refusal_headers
from cytoray_services.http.head import Application, HeadAsGet, Message, Receive, Send
from cytoray_services.http.unpacking import Unpacking, unpacking_of
from cytoray_serving.front.answer_body import AnswerBody
from cytoray_serving.front.browsers import added_headers, asks_first, require_own_page
from cytoray_serving.front.limits import HEADER
from cytoray_serving.front.rules import Rules, no_gateway
from cytoray_serving.open_inference.messages import error_text

log = logging.getLogger(__name__)

_SERVE = ("/-/healthz", "/-/routes")  # health checks of HAProxy, which Ray Serve answers
_OPEN = (
    *("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/metrics", "/docs", "/openapi.json"),
    *("/", "/favicon.ico"),
)
_OPEN_FOLDERS = ("/docs/", "/page/")
_WITH_IMAGES = ("predict", "images")  # the last parts of addresses that take images
_LARGEST_JSON = 2**20
_LARGEST_TENSORS_IN_JSON = 2**24
_GRACE_SECONDS = 30.0
_PIECE = 2**18  # bytes of an answer that are sent at a time
_SMALL = 2**20  # bytes of an answer that stay in memory, however slowly they are read
_LINGER_SECONDS, _LINGER_BYTES = 2.0, 2**26  # after a refusal, before its connection is closed
_LAST_SECONDS = 0.1  # for the answer to arrive if the body is longer than what is read
_PATIENCE_SECONDS = 0.05  # until a large answer that is not read is moved to disk


class Entrance:
    """ASGI middleware.

    Parameters
    ----------
    application
        The application behind it.
    secret
        The value that the proxy adds as :data:`~cytoray_serving.front.limits.HEADER`; None disables the check.
    rules
        Returns the rules of this process; without rules there is no gateway in this process, and nothing passes.
    """

    def __init__(self, application: Application, *, secret: str | None, rules: Callable[[], Rules | None]) -> None:
        self._application = HeadAsGet(application)
        self._secret = secret
        self._rules = rules

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Accept or refuse a request."""
        if scope["type"] != "http" or scope["path"] in _SERVE:
            await self._application(scope, receive, send)
            return
        rules = self._rules()
        origins = frozenset() if rules is None else rules.origins
        send = _with_headers(send, added_headers(Headers(scope=scope), origins))
        try:
            self._require(scope, rules)
        except CytorayError as error:
            if rules is not None:
                rules.refused(error)
            await _refuse(scope, receive, send, error)
            return
        assert rules is not None  # _require has refused  # noqa: S101
        if asks_first(scope["method"], Headers(scope=scope), origins):
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        with rules.bodies.request() as holder:
            await _Passage(scope, receive, send, rules, holder).run(self._application)

    def _require(self, scope: MutableMapping[str, Any], rules: Rules | None) -> None:
        headers = Headers(scope=scope)
        if self._secret is not None and not hmac.compare_digest(
            headers.get(HEADER, "").encode(), self._secret.encode()
        ):
            raise ForbiddenError("expected a request to the address of the service", hint="send it to --port")
        if rules is None:
            raise no_gateway()
        host, origin = headers.get("host"), headers.get("origin")
        rules.require_own_name(host, origin)
        require_own_page(scope["method"], host, origin, rules.origins)
        if not _is_open(scope["path"]) and not asks_first(scope["method"], headers, rules.origins):
            rules.authorize(headers.get("authorization"))


class _Passage:
    """One request and its answer."""

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
        self._late: asyncio.Task[None] | None = None

    async def run(self, application: Application) -> None:
        try:
            self._prepare()
            await application(self._scope, self.receive, self.send)
            if self._late is not None:
                await self._late
        except CytorayError as error:
            self._error = self._error or error
        except asyncio.CancelledError:
            if self._error is None:
                raise
        if self._error is not None and not self._answering:
            self._rules.refused(self._error)
            await _refuse(self._scope, self._receive, self._send, self._error)

    def _prepare(self) -> None:
        headers = Headers(scope=self._scope)
        declared = headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and int(declared[:20]) > self._limit:
            raise self._too_large(int(declared[:20]))
        self._unpacking = unpacking_of(headers.get("content-encoding"), self._limit)
        if self._unpacking is not None:
            dropped = (b"content-encoding", b"content-length")
            self._scope["headers"] = [pair for pair in self._scope["headers"] if pair[0].lower() not in dropped]

    async def receive(self) -> Message:
        """Return the next part of the body, counted and decompressed."""
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
        """Send a part of the answer; it is kept until the caller has read it."""
        if self._error is not None and not self._answering:
            return  # the refusal replaces the response of the application
        self._answering = True
        if message["type"] == "http.response.body":
            await self._send_body(message.get("body", b""), more=bool(message.get("more_body", False)))
            return
        await self._send(message)

    async def _send_body(self, content: bytes, *, more: bool) -> None:
        """Send in pieces: a server accepts a piece immediately, and waits for the caller before the next.

        The rest of an answer that is not read is moved to disk, and the application ends before it is sent, so its
        memory is free.
        """
        body = AnswerBody(content)
        del content
        self._rules.bodies.hold(self._holder, body.in_memory)
        sending = asyncio.create_task(self._send_pieces(body, more=more))
        try:
            await asyncio.wait({sending}, timeout=None if more or body.size <= _SMALL else _PATIENCE_SECONDS)
            if not sending.done():
                await self._move_to_disk(body)
        except asyncio.CancelledError:
            sending.cancel()
            raise
        if sending.done():
            sending.result()
        else:
            self._late = sending

    async def _move_to_disk(self, body: AnswerBody) -> None:
        try:
            file = await asyncio.to_thread(body.written)
        except OSError as error:
            log.warning("an answer of %d bytes that its caller does not read stays in memory: %s", body.size, error)
            return
        before = body.in_memory
        body.read_from(file)
        self._rules.bodies.hold(self._holder, body.in_memory - before)

    async def _send_pieces(self, body: AnswerBody, *, more: bool) -> None:
        began = time.monotonic()
        try:
            for start in range(0, body.size, _PIECE) or (0,):
                last = start + _PIECE >= body.size
                message = {
                    "type": "http.response.body",
                    "body": body.piece(start, _PIECE),
                    "more_body": more or not last,
                }
                await self._within(self._send(message), start, "the answer", began)
        finally:
            self._rules.bodies.hold(self._holder, -body.in_memory)
            body.close()

    async def _within(self, step: Awaitable[Any], size: int, what: str, began: float) -> Any:
        slowest = self._rules.limits.slow_kilobytes * 1024
        try:
            async with asyncio.timeout(began + _GRACE_SECONDS + size / slowest - time.monotonic()):
                return await step
        except TimeoutError as error:
            raise DeadlineError(
                f"expected {what} at {slowest / 1024:g} kB per second or faster after {_GRACE_SECONDS:g} seconds",
                field="body",
                hint="send smaller images, or submit a job with the URI of the image",
            ) from error

    def _too_large(self, size: int) -> ImageTooLargeError:
        return ImageTooLargeError(
            f"expected a body of at most {self._limit} bytes, got {size} or more",
            field="body",
            hint="send a part of the image, or use cytoray predict without --url, which reads it in tiles",
        )


def _is_open(path: str) -> bool:
    """Whether an address needs no token: it says nothing of images or models."""
    return path in _OPEN or path.startswith(_OPEN_FOLDERS)


def _with_headers(send: Send, added: dict[str, str]) -> Send:
    """Return a function that sends a response with further headers, unless it has them."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message.get("headers", ())}
            more = [(name.lower().encode(), value.encode()) for name, value in added.items()]
            message["headers"] = [*message.get("headers", ()), *(pair for pair in more if pair[0] not in present)]
        await send(message)

    return sending


def _largest(scope: MutableMapping[str, Any], rules: Rules) -> int:
    """Return the maximum size of a body at an address: images are large, everything else is small."""
    place = scope["path"].rpartition("/")[2]
    plain = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower() == "application/json"
    if place == "infer":
        return min(rules.largest_body, _LARGEST_TENSORS_IN_JSON) if plain else rules.largest_body
    adds_item = scope["path"].startswith("/datasets/") and place == "items"
    if (place in _WITH_IMAGES or adds_item) and not plain:
        return rules.largest_body
    return min(rules.largest_body, _LARGEST_JSON)


async def _refuse(scope: MutableMapping[str, Any], receive: Receive, send: Send, error: CytorayError) -> None:
    described = {"error": error_text(error)} if scope["path"].startswith("/v2/") else error.describe()
    body = json.dumps(described).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    headers |= {name.lower(): value for name, value in refusal_headers(error).items()}
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await _linger(receive)
    await send({"type": "http.response.body", "body": b""})


async def _linger(receive: Receive) -> None:
    """Read for a moment what the caller still sends.

    Closing a connection with unread bytes can lose the answer (RFC 9112, section 9.6), and a proxy that has not
    forwarded the whole request closes its connection to the caller, which may already carry the next request.
    """
    size, more = 0, True
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            while more and size < _LINGER_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                more = message["type"] == "http.request" and bool(message.get("more_body", False))
    if more:
        await asyncio.sleep(_LAST_SECONDS)
