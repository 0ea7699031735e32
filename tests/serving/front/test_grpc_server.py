"""Calls over gRPC at the front, through Ray Serve's own way of starting its server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from ray.serve._private import grpc_util
from ray.serve.config import gRPCOptions
from ray.serve.generated.serve_pb2 import HealthzRequest  # type: ignore[attr-defined]
from ray.serve.generated.serve_pb2_grpc import RayServeAPIServiceStub

from cytoray_analysis.errors import CytorayError
from cytoray_services.free_ports import free_port
from cytoray_serving.front.grpc_server import guarded_server
from cytoray_serving.front.limits import HEADER
from cytoray_serving.front.rules import HeldBytes, Rules
from cytoray_serving.open_inference.grpc import SERVICER
from cytoray_serving.open_inference.protocol import open_inference_pb2 as messages
from cytoray_serving.open_inference.protocol.open_inference_pb2_grpc import GRPCInferenceServiceStub
from front_doors import SECRET, TOKEN, let_in

THROUGH_THE_PROXY = (HEADER.lower(), SECRET)
WITH_TOKEN = ("authorization", TOKEN)
CALLS = "/inference.GRPCInferenceService"
UNKNOWN_FIELD = b"\xfa\x01\x80\x80\x40" + bytes(2**20)  # 1 MB in field 31
DEADLINE = grpc.StatusCode.DEADLINE_EXCEEDED


class Server:
    """Ray Serve's server with our class in its place; it notes the calls that came through."""

    def __init__(self, rules: Rules | None) -> None:
        self.came: list[str] = []
        self.read: list[int] = []
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
            self.read.append(request.ByteSize())
            context.set_code(grpc.StatusCode.OK)  # as Serve does after each answer
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


def code_of(address: str, call: str, *metadata: tuple[str, str], size: int = 0, seconds: float = 20) -> Any:
    """Ask once; gives the code of the answer."""
    requests = {"ModelInfer": messages.ModelInferRequest(raw_input_contents=[bytes(size)])}
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        method = getattr(GRPCInferenceServiceStub(channel), call)
        try:
            asked = requests.get(call) or getattr(messages, f"{call}Request")()
            assert method(asked, metadata=metadata, timeout=seconds) is not None
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


@pytest.mark.slow
def test_a_message_is_as_large_as_a_body_may_be(server: Server) -> None:
    address = f"127.0.0.1:{server.port}"
    for size, code in ((2**20, grpc.StatusCode.OK), (2**22, grpc.StatusCode.RESOURCE_EXHAUSTED)):
        assert code_of(address, "ModelInfer", THROUGH_THE_PROXY, WITH_TOKEN, size=size) is code
    # Nothing is read of who has no token, however much there is.
    assert code_of(address, "ModelInfer", THROUGH_THE_PROXY, size=2**26) is grpc.StatusCode.UNAUTHENTICATED


def asked(address: str, method: str, message: bytes, *metadata: tuple[str, str]) -> Any:
    """Send bytes as they are to a method by its full name; gives the code of the answer."""
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            channel.unary_unary(method)(message, metadata=metadata, timeout=20)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("method", "metadata"),
    [
        (f"{CALLS}/ServerLive", (THROUGH_THE_PROXY,)),
        (f"{CALLS}/ServerReady", (THROUGH_THE_PROXY,)),
        (f"{CALLS}/ServerMetadata", (THROUGH_THE_PROXY, WITH_TOKEN)),
        ("/ray.serve.RayServeAPIService/Healthz", ()),
        ("/ray.serve.RayServeAPIService/ListApplications", (THROUGH_THE_PROXY, WITH_TOKEN)),
    ],
)
def test_a_call_without_arguments_is_answered_without_a_look_at_its_message(
    server: Server, method: str, metadata: tuple[tuple[str, str], ...]
) -> None:
    assert asked(f"127.0.0.1:{server.port}", method, UNKNOWN_FIELD, *metadata) is grpc.StatusCode.OK
    assert (server.came, server.read) == ([method.rpartition("/")[2]], [0])


def test_a_call_is_open_by_its_whole_name(server: Server, refusals: list[CytorayError]) -> None:
    address = f"127.0.0.1:{server.port}"
    for method in ("/any.Thing/ServerReady", "/inference.GRPCInferenceService/x/ServerLive"):
        assert asked(address, method, b"", THROUGH_THE_PROXY) is grpc.StatusCode.UNAUTHENTICATED
        assert asked(address, method, b"", THROUGH_THE_PROXY, WITH_TOKEN) is grpc.StatusCode.UNIMPLEMENTED
    assert (server.came, len(refusals)) == ([], 2)


@pytest.mark.parametrize("call", ["ModelReady", "ModelMetadata"])
def test_a_message_that_holds_a_name_is_small(server: Server, call: str) -> None:
    address, passes = f"127.0.0.1:{server.port}", (THROUGH_THE_PROXY, WITH_TOKEN)
    assert asked(address, f"{CALLS}/{call}", UNKNOWN_FIELD, *passes) is grpc.StatusCode.INVALID_ARGUMENT
    assert server.came == []
    assert code_of(address, call, *passes) is grpc.StatusCode.OK


@pytest.mark.slow
@pytest.mark.parametrize(
    "bomb",
    [
        messages.ModelInferRequest(inputs=[{}] * 1000).SerializeToString(),  # 2 bytes each, 100 as objects
        messages.ModelInferRequest(raw_input_contents=[b""] * 1000).SerializeToString(),
        messages.ModelInferRequest(
            inputs=[{"contents": {"uint64_contents": [0] * (2**24 + 1)}}],  # 1 byte each, 8 as numbers
        ).SerializeToString(),
        b"\x0b" * 1000,  # groups in groups
        b"\x3a\xff\xff\xff\xff\x7f",  # longer than it is
        b"\x3a" + b"\xff" * 11,
    ],
    ids=["inputs", "tensors", "listed", "groups", "cut", "endless number"],
)
def test_a_message_that_unfolds_is_refused_before_it_does(bomb: bytes) -> None:
    server = Server(Rules(let_in, 2**26, HeldBytes(2**30)))
    try:
        address, passes = f"127.0.0.1:{server.port}", (THROUGH_THE_PROXY, WITH_TOKEN)
        assert asked(address, f"{CALLS}/ModelInfer", bomb, *passes) is grpc.StatusCode.INVALID_ARGUMENT
        assert server.came == []
        assert code_of(address, "ModelInfer", *passes, size=2**25) is grpc.StatusCode.OK
    finally:
        server.stop()


def test_messages_are_counted_while_they_are_held(refusals: list[CytorayError]) -> None:
    held = HeldBytes(2**20)
    server = Server(Rules(let_in, 2**22, held, refused=refusals.append))
    try:
        address, passes = f"127.0.0.1:{server.port}", (THROUGH_THE_PROXY, WITH_TOKEN)
        with held.request() as another:
            held.add(another, 2**19)
            assert code_of(address, "ModelInfer", *passes, size=2**20) is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert code_of(address, "ModelInfer", *passes, size=2**18) is grpc.StatusCode.OK
        assert code_of(address, "ModelInfer", *passes, size=2**21) is grpc.StatusCode.OK  # alone it may
        assert held.bytes == 0
        assert [error.status for error in refusals] == [429]
        assert server.came == ["ModelInfer"] * 2
    finally:
        server.stop()


@pytest.mark.slow
def test_of_one_caller_few_messages_are_read_at_a_time() -> None:
    server = Server(Rules(lambda authorization: authorization, 2**26, HeldBytes(2**30)))
    address, done = f"127.0.0.1:{server.port}", threading.Event()
    mine, another = ("authorization", "Bearer mine"), ("authorization", "Bearer another")

    def stalled() -> Iterator[bytes]:
        done.wait(60)
        yield b""

    try:
        with grpc.insecure_channel(address) as channel:
            begin = channel.stream_stream(f"{CALLS}/ModelInfer")
            begun = [begin(stalled(), metadata=(THROUGH_THE_PROXY, mine), timeout=60) for _ in range(20)]
            time.sleep(1)
            assert code_of(address, "ModelInfer", THROUGH_THE_PROXY, mine, seconds=1) is DEADLINE
            assert code_of(address, "ModelInfer", THROUGH_THE_PROXY, another) is grpc.StatusCode.OK
            assert code_of(address, "ServerMetadata", THROUGH_THE_PROXY, mine) is grpc.StatusCode.OK
            for one in begun:
                one.cancel()
            assert code_of(address, "ModelInfer", THROUGH_THE_PROXY, mine) is grpc.StatusCode.OK
    finally:
        done.set()
        server.stop()


def test_a_port_belongs_to_one_server_and_to_this_machine(server: Server) -> None:
    with pytest.raises(RuntimeError):
        server.start(server.port)
    assert code_of(f"127.0.0.2:{server.port}", "ServerLive", THROUGH_THE_PROXY) is grpc.StatusCode.UNAVAILABLE


def test_without_a_gateway_callers_are_asked_to_come_again() -> None:
    fallback = Server(None)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{fallback.port}") as channel:
            live = GRPCInferenceServiceStub(channel).ServerLive
            with pytest.raises(grpc.RpcError) as refused:
                live(messages.ServerLiveRequest(), metadata=(THROUGH_THE_PROXY,), timeout=20)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert dict(refused.value.trailing_metadata())["retry-after"] == "1"
    finally:
        fallback.stop()
