"""The gRPC server of a gateway, instead of Ray Serve's: it checks the token before it reads a message.

The server of Ray Serve listens on every address, accepts no interceptors, and shares its port with any other program,
because it passes the option ``grpc.so_reuseport`` as text, which gRPC ignores.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakValueDictionary

import grpc  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError
from grpc.aio._server import Server  # type: ignore[import-untyped]
from ray.serve._private import grpc_util
from ray.serve._private.constants import DEFAULT_GRPC_SERVER_OPTIONS

from cytoray_analysis.errors import CytorayError, ForbiddenError, RequestError
from cytoray_serving.front.limits import HEADER
from cytoray_serving.front.rules import Rules, no_gateway
from cytoray_serving.open_inference.grpc import CALLS, OPEN_CALLS, status_of, trailers_of
from cytoray_serving.open_inference.wire import beside_tensors

_HEALTH = "/ray.serve.RayServeAPIService/Healthz"  # HAProxy calls it, without a secret
_WITHOUT_ARGUMENTS = (*OPEN_CALLS, f"{CALLS}/ServerMetadata", _HEALTH, "/ray.serve.RayServeAPIService/ListApplications")
_WITH_TENSORS = f"{CALLS}/ModelInfer"
_BESIDE_TENSORS = 2**20  # bytes of a message
_LARGEST_NAMES = 2**16  # bytes of a message that names a model
_READ_AT_ONCE = 4  # messages of one caller; messages that are being read cannot be counted yet
_WELL = (0, grpc.StatusCode.OK)  # the code of a call before it is set, and as Ray Serve sets it
_UNFOLDED = 8  # memory factor of data outside raw tensors as objects


class FrontInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Refuses calls without the secret of the instance, or without a token, before their messages are read.

    gRPC reads the message of a unary call before the handler runs. Therefore every call is handled as a stream, in
    which a message is read on demand: not at all for a call without arguments, otherwise a few of each caller at a
    time, and counted until the answer is sent.

    Parameters
    ----------
    secret
        The value that the proxy adds to each call; None disables the check.
    rules
        Returns the rules of this process; without rules (a fallback of Ray Serve) only the health check passes.
    """

    def __init__(self, secret: str | None, rules: Callable[[], Rules | None]) -> None:
        self._secret = secret
        self._rules = rules
        self._turns: WeakValueDictionary[object, asyncio.Semaphore] = WeakValueDictionary()

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], call: grpc.HandlerCallDetails
    ) -> Any:
        """Return the handler of a call."""
        rules = self._rules()
        try:
            caller = None if call.method == _HEALTH else self._admitted(call, rules)
        except CytorayError as error:
            return _refusing(error)
        handler = await continuation(call)
        if handler is None or handler.request_streaming or handler.response_streaming:
            return None  # no such call
        turn = self._turns.setdefault(caller, asyncio.Semaphore(_READ_AT_ONCE))

        async def handle(messages: Any, context: grpc.aio.ServicerContext) -> None:
            if rules is None or call.method in _WITHOUT_ARGUMENTS:
                await _write(await handler.unary_unary(handler.request_deserializer(b""), context), context)
            else:
                await _answer(call.method, handler, context, rules, turn)

        return grpc.stream_stream_rpc_method_handler(handle, response_serializer=handler.response_serializer)

    def _admitted(self, call: grpc.HandlerCallDetails, rules: Rules | None) -> object:
        """Return the caller; None if the call needs none."""
        metadata = dict(call.invocation_metadata or ())
        if self._secret is not None and not hmac.compare_digest(metadata.get(HEADER.lower(), ""), self._secret):
            raise ForbiddenError("expected a call to the address of the service", hint="send it to --grpc-port")
        if rules is None:
            raise no_gateway()
        if call.method in OPEN_CALLS:
            return None
        try:
            return rules.authorize(metadata.get("authorization"))
        except CytorayError as error:
            rules.refused(error)
            raise


async def _answer(
    method: str, handler: Any, context: grpc.aio.ServicerContext, rules: Rules, turn: asyncio.Semaphore
) -> None:
    """Read the message of a call in turn, and answer it."""
    with rules.bodies.request() as holder:
        try:
            async with turn:
                message = await context.read()
                rules.bodies.add(holder, _held_for(method, message))
            request = _parsed(message, handler)
        except CytorayError as error:
            rules.refused(error)
            await _abort(context, error)
        del message
        answer = await handler.unary_unary(request, context)
        rules.bodies.hold(holder, len(answer))
        await _write(answer, context)


async def _write(answer: bytes, context: grpc.aio.ServicerContext) -> None:
    if context.code() in _WELL:  # otherwise the code is the answer
        await context.write(answer)


def _held_for(method: str, message: Any) -> int:
    """Return the memory of a message while it is answered."""
    if message is grpc.aio.EOF:
        raise RequestError("expected a message, got the end of the call", field="message")
    if method == _WITH_TENSORS:
        return len(message) + _UNFOLDED * beside_tensors(message)
    if len(message) > _LARGEST_NAMES:
        raise RequestError(f"expected a message of at most {_LARGEST_NAMES} bytes, got {len(message)}", field="message")
    return len(message)


def _parsed(message: bytes, handler: Any) -> Any:
    try:
        return handler.request_deserializer(message)
    except DecodeError as error:
        raise RequestError("expected the message of the call, got other bytes", field="message") from error


def _refusing(error: CytorayError) -> Any:
    """Return a handler that refuses without reading."""

    async def refuse(messages: Any, context: grpc.aio.ServicerContext) -> None:
        await _abort(context, error)

    return grpc.stream_stream_rpc_method_handler(refuse)


async def _abort(context: grpc.aio.ServicerContext, error: CytorayError) -> None:
    code, details = status_of(error)
    await context.abort(code, details, trailers_of(error))


def guarded_server(secret: str | None, address: str | None, rules: Callable[[], Rules | None]) -> type:
    """Return the server class that replaces the one of Ray Serve.

    Parameters
    ----------
    secret, rules
        See :class:`FrontInterceptor`.
    address
        Address to listen on; None for every address.
    """

    class GuardedServer(grpc_util.gRPCGenericServer):
        def __init__(self, service_handler_factory: Callable[..., Any], *, extra_options: Any = None) -> None:
            found = rules()
            options = dict(DEFAULT_GRPC_SERVER_OPTIONS) | {"grpc.so_reuseport": 0}
            if found is not None:
                options["grpc.max_receive_message_length"] = found.largest_body + _BESIDE_TENSORS
            Server.__init__(
                self,
                thread_pool=None,
                generic_handlers=(),
                interceptors=(FrontInterceptor(secret, rules),),
                maximum_concurrent_rpcs=None,
                compression=None,
                options=list(options.items()),
            )
            self.generic_rpc_handlers = []
            self.service_handler_factory = service_handler_factory
            self._passthrough_service_names: set[str] = set()

        def add_insecure_port(self, wanted: str) -> int:
            port = wanted.rpartition(":")[2]
            return int(super().add_insecure_port(wanted if address is None else f"{address}:{port}"))

    return GuardedServer
