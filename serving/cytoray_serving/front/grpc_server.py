"""The gRPC server of a gateway, in place of Ray Serve's: it asks for the token before it reads a message.

Serve's own listens on every address, takes no interceptors, and shares its port with any other program, since it
gives gRPC the option ``grpc.so_reuseport`` as text, which gRPC does not read.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import grpc  # type: ignore[import-untyped]
from grpc.aio._server import Server  # type: ignore[import-untyped]
from ray.serve._private import grpc_util
from ray.serve._private.constants import DEFAULT_GRPC_SERVER_OPTIONS

from cytoray_analysis.errors import CytorayError, ForbiddenError
from cytoray_serving.front.limits import HEADER
from cytoray_serving.front.rules import Rules, no_gateway
from cytoray_serving.open_inference.grpc import OPEN_CALLS, status_of

_SERVE = "/ray.serve.RayServeAPIService/Healthz"  # HAProxy asks it, without a secret
_BESIDE_TENSORS = 2**20  # bytes of a message


class FrontInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Refuses calls without the instance's secret, or without a token, before their messages are read.

    Parameters
    ----------
    secret
        What the proxy adds to each call; None for nothing.
    rules
        Gives the rules of this process; without any (a fallback of Serve) only Serve's own health check passes.
    """

    def __init__(self, secret: str | None, rules: Callable[[], Rules | None]) -> None:
        self._secret = secret
        self._rules = rules

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], call: grpc.HandlerCallDetails
    ) -> Any:
        """Return what handles a call."""
        if call.method == _SERVE:
            return await continuation(call)
        try:
            self._require(call.method.rpartition("/")[2], dict(call.invocation_metadata or ()))
        except CytorayError as error:
            return _refusing(error)
        return await continuation(call)

    def _require(self, method: str, metadata: dict[str, str]) -> None:
        if self._secret is not None and not hmac.compare_digest(metadata.get(HEADER.lower(), ""), self._secret):
            raise ForbiddenError("expected a call through the service's own address", hint="ask at --grpc-port")
        rules = self._rules()
        if rules is None:
            raise no_gateway()
        if method not in OPEN_CALLS:
            try:
                rules.authorize(metadata.get("authorization"))
            except CytorayError as error:
                rules.refused(error)
                raise


def _refusing(error: CytorayError) -> Any:
    """Return a handler that refuses; of streams, for the message of any other would be read first."""

    async def refuse(messages: Any, context: grpc.aio.ServicerContext) -> None:
        code, details = status_of(error)
        await context.abort(code, details)

    return grpc.stream_stream_rpc_method_handler(refuse)


def guarded_server(secret: str | None, address: str | None, rules: Callable[[], Rules | None]) -> type:
    """Return the class of servers that takes the place of Ray Serve's.

    Parameters
    ----------
    secret, rules
        See :class:`FrontInterceptor`.
    address
        Where to listen; None for every address.
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
