"""Calls over gRPC at the front, through Ray Serve's own way of starting its server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from ray.serve._private import grpc_util
from ray.serve.config import gRPCOptions
from ray.serve.generated.serve_pb2 import HealthzRequest  # type: ignore[attr-defined]
from ray.serve.generated.serve_pb2_grpc import RayServeAPIServiceStub

from cytoray_analysis.errors import CytorayError
from cytoray_serving.app import free_port
from cytoray_serving.front.grpc_server import guarded_server
from cytoray_serving.front.limits import HEADER
from cytoray_serving.front.rules import HeldBytes, Rules
from cytoray_serving.open_inference.grpc import SERVICER
from cytoray_serving.open_inference.protocol import open_inference_pb2 as messages
from cytoray_serving.open_inference.protocol.open_inference_pb2_grpc import GRPCInferenceServiceStub
from front_doors import SECRET, TOKEN, let_in

THROUGH_THE_PROXY = (HEADER.lower(), SECRET)
WITH_TOKEN = ("authorization", TOKEN)


class Server:
    """Ray Serve's server with our class in its place; it notes the calls that came through."""

    def __init__(self, rules: Rules | None) -> None:
        self.came: list[str] = []
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.port = free_port()
        self.kind = guarded_server(SECRET, "127.0.0.1", lambda: rules)
        self.server = self.start(self.port)

    def start(self, port: int) -> Any:
        options = gRPCOptions(port=port, grpc_servicer_functions=[SERVICER])

        async def start() -> Any:
            return await grpc_util.start_grpc_server(self.handle, options, event_loop=self.loop)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(grpc_util, "gRPCGenericServer", self.kind)
            return asyncio.run_coroutine_threadsafe(start(), self.loop).result(20)[1]

    def handle(self, service_method: str, streaming_type: Any) -> Any:
        async def answer(request: Any, context: Any) -> bytes:
            self.came.append(service_method.rpartition("/")[2])
            return b""

        return answer

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.server.stop(0), self.loop).result(20)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(20)


@pytest.fixture
def refusals() -> list[CytorayError]:
    return []


@pytest.fixture
def server(refusals: list[CytorayError]) -> Iterator[Server]:
    running = Server(Rules(let_in, 2**20, HeldBytes(2**30), refused=refusals.append))
    yield running
    running.stop()


def code_of(address: str, call: str, *metadata: tuple[str, str], size: int = 0) -> Any:
    """Ask once; gives the code of the answer."""
    requests = {"ModelInfer": messages.ModelInferRequest(raw_input_contents=[bytes(size)])}
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        method = getattr(GRPCInferenceServiceStub(channel), call)
        try:
            method(requests.get(call) or getattr(messages, f"{call}Request")(), metadata=metadata, timeout=20)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def test_a_call_passes_with_the_secret_and_a_token(server: Server, refusals: list[CytorayError]) -> None:
    address = f"127.0.0.1:{server.port}"
    assert code_of(address, "ServerMetadata", THROUGH_THE_PROXY, WITH_TOKEN) is grpc.StatusCode.OK
    assert code_of(address, "ServerLive", THROUGH_THE_PROXY) is grpc.StatusCode.OK
    assert code_of(address, "ServerMetadata", WITH_TOKEN) is grpc.StatusCode.PERMISSION_DENIED
    assert code_of(address, "ServerLive", (HEADER.lower(), "other")) is grpc.StatusCode.PERMISSION_DENIED
    assert code_of(address, "ServerMetadata", THROUGH_THE_PROXY) is grpc.StatusCode.UNAUTHENTICATED
    assert server.came == ["ServerMetadata", "ServerLive"]
    assert [error.status for error in refusals] == [401]


def test_serve_s_own_question_about_health_passes(server: Server) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        RayServeAPIServiceStub(channel).Healthz(HealthzRequest(), timeout=20)  # type: ignore[no-untyped-call]
    assert server.came == ["Healthz"]


def test_a_message_is_as_large_as_a_body_may_be(server: Server) -> None:
    address = f"127.0.0.1:{server.port}"
    for size, code in ((2**20, grpc.StatusCode.OK), (2**22, grpc.StatusCode.RESOURCE_EXHAUSTED)):
        assert code_of(address, "ModelInfer", THROUGH_THE_PROXY, WITH_TOKEN, size=size) is code
    # Nothing is read of who has no token, however much there is.
    assert code_of(address, "ModelInfer", THROUGH_THE_PROXY, size=2**26) is grpc.StatusCode.UNAUTHENTICATED


def test_a_port_belongs_to_one_server_and_to_this_machine(server: Server) -> None:
    with pytest.raises(RuntimeError):
        server.start(server.port)
    assert code_of(f"127.0.0.2:{server.port}", "ServerLive", THROUGH_THE_PROXY) is grpc.StatusCode.UNAVAILABLE


def test_without_a_gateway_callers_are_told_to_come_again() -> None:
    fallback = Server(None)
    try:
        address = f"127.0.0.1:{fallback.port}"
        assert code_of(address, "ServerLive", THROUGH_THE_PROXY) is grpc.StatusCode.UNAVAILABLE
    finally:
        fallback.stop()
