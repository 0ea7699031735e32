"""An unmodified tritonclient over gRPC, and messages that no client should send."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import numpy as np
import pytest

from cytoray_analysis.errors import UnauthorizedError
from cytoray_serving.messages import Answering
from cytoray_serving.open_inference.grpc import InferenceMethods, request_of
from cytoray_serving.open_inference.protocol import open_inference_pb2 as messages
from cytoray_serving.open_inference.protocol import open_inference_pb2_grpc as service
from serving_samples import CELL_CLASSES

HERE = Path(__file__).parent
LARGEST_MESSAGE = 64 * 2**20


def let_in(authorization: str | None) -> None:
    if authorization != "Bearer sesame":
        raise UnauthorizedError("expected a token", hint="send authorization: Bearer …")


@pytest.fixture(scope="module")
def address(answering: Answering) -> Iterator[str]:
    """Run the calls in a server of grpc.aio, in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> tuple[Any, int]:
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", LARGEST_MESSAGE)])

        def answering_for(authorization: str | None) -> Answering:
            let_in(authorization)
            return answering

        methods = InferenceMethods(answering_for, require_ready=answering.statuses)
        service.add_GRPCInferenceServiceServicer_to_server(methods, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    server, port = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    yield f"127.0.0.1:{port}"
    asyncio.run_coroutine_threadsafe(server.stop(1), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)


@pytest.fixture(scope="module")
def asked(address: str, samples: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ask everything once; gives the folder with what came back."""
    folder = tmp_path_factory.mktemp("asked")
    questions = {f"{model}.image": sample.image for model, sample in samples.items()}
    questions |= {f"{model}.masks": sample.masks for model, sample in samples.items() if sample.masks is not None}
    np.savez(folder / "questions.npz", **questions)
    command = [sys.executable, str(HERE / "triton_grpc_client.py"), address, str(folder)]
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1])}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def said(asked: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((asked / "said.json").read_text())
    return found


@pytest.mark.slow
def test_answers_of_every_kind_are_those_of_the_predictors(asked: Path, samples: dict[str, Any]) -> None:
    answers = np.load(asked / "answers.npz")
    labels, image = samples["nuclei"].prediction, samples["stain"].prediction
    classes, lineage = samples["cells"].prediction.answer, samples["linker"].prediction.answer
    np.testing.assert_array_equal(answers["nuclei.labels"], labels.answer)
    np.testing.assert_array_equal(answers["nuclei.confidence"], labels.confidence)
    np.testing.assert_allclose(answers["stain.image"], image.answer, rtol=1e-5)
    np.testing.assert_array_equal(answers["cells.probabilities"], classes.probabilities)
    np.testing.assert_array_equal(answers["cells.boxes"], classes.cells.boxes)
    assert tuple(name.decode() for name in answers["cells.labels"]) == classes.labels
    assert [name.decode() for name in answers["cells.classes"]] == CELL_CLASSES
    np.testing.assert_array_equal(answers["linker.masks"], lineage.tracked[:])
    np.testing.assert_array_equal(answers["linker.tracks"], lineage.table)
    np.testing.assert_array_equal(answers["file.labels"], labels.answer)


@pytest.mark.slow
def test_an_answer_names_its_request_and_its_model(said: dict[str, Any], samples: dict[str, Any]) -> None:
    assert said["linker"]["id"] == said["linker"]["model_name"] == "linker"
    digest = samples["linker"].prediction.model.digest
    assert said["linker"]["parameters"]["digest"] == {"string_param": digest}
    assert said["nuclei"]["parameters"]["seconds_network"]["double_param"] > 0
    assert said["outputs"] == ["labels"]
    assert said["version"] == "3"


def test_server_and_models_describe_themselves(said: dict[str, Any]) -> None:
    assert [said[name] for name in ("live", "ready", "model ready")] == [True, True, True]
    assert said["server"] == "cytoray"
    assert said["inputs"] == ["image", "masks", "boxes"]
    assert said["boxes"] == [["-1", "2", "2"]]


@pytest.mark.parametrize(
    ("what", "code", "says"),
    [
        ("no token", "UNAUTHENTICATED", "expected a token (send authorization"),
        ("no model", "NOT_FOUND", "nucleoli"),
        ("no version", "NOT_FOUND", "nuclei"),
        ("channels", "INVALID_ARGUMENT", "channels"),
        ("output", "INVALID_ARGUMENT", "labels, confidence"),
        ("timeout", "DEADLINE_EXCEEDED", "within"),
        ("client timeout", "DEADLINE_EXCEEDED", ""),
    ],
)
def test_refusals_have_the_code_and_the_words(said: dict[str, Any], what: str, code: str, says: str) -> None:
    assert said[what][0] == code
    assert says in said[what][1]


def call(address: str, request: Any) -> Any:
    with grpc.insecure_channel(address) as channel:
        stub = service.GRPCInferenceServiceStub(channel)
        return stub.ModelInfer(request, metadata=[("authorization", "Bearer sesame")], timeout=30)


@pytest.mark.parametrize(
    ("datatype", "contents"),
    [
        ("UINT8", {"uint_contents": [7] * 64}),
        ("INT64", {"int64_contents": [7] * 64}),
        ("FP32", {"fp32_contents": [7.0] * 64}),
        ("BOOL", {"bool_contents": [True] * 64}),
    ],
)
def test_values_may_come_as_lists(address: str, datatype: str, contents: dict[str, Any]) -> None:
    image = {"name": "image", "datatype": datatype, "shape": [8, 8], "contents": contents}
    answer = call(address, messages.ModelInferRequest(model_name="stain", inputs=[image]))
    assert list(answer.outputs[0].shape) == [2, 8, 8]
    assert len(answer.raw_output_contents[0]) == 2 * 8 * 8 * 4


def asking(name: str, value: str) -> dict[str, Any]:
    image = {"name": "image", "datatype": "UINT8", "shape": [8, 8]}
    parameters = {name: {"string_param": value}}
    return {"inputs": [image], "raw_input_contents": [bytes(64)], "parameters": parameters}


@pytest.mark.parametrize(
    "request_fields",
    [
        {},
        {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [8, 8]}]},
        {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [-8, -8]}], "raw_input_contents": [bytes(64)]},
        {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [8, 8]}], "raw_input_contents": [bytes(63)]},
        {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [8, 8]}], "raw_input_contents": [bytes(64)] * 2},
        {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [2**40, 2**40]}], "raw_input_contents": [b""]},
        {"inputs": [{"name": "image", "datatype": "", "shape": [8, 8]}], "raw_input_contents": [bytes(64)]},
        {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1]}], "raw_input_contents": [b"\xff" * 9]},
        {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1], "contents": {"uint_contents": [256]}}]},
        {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [0, 8]}] * 2, "raw_input_contents": [b"", b""]},
        asking("channel", "[" * 10_000),
        asking("channel", "[" * 2**17),
        asking("segmentation", "a" * 2000),
        {"parameters": {str(number): {"bool_param": True} for number in range(300)}},
    ],
)
def test_malformed_messages_are_invalid_arguments(address: str, request_fields: dict[str, Any]) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(address, messages.ModelInferRequest(model_name="stain", **request_fields))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.slow
def test_listed_values_become_an_array_without_a_list_of_objects() -> None:
    contents = {"int64_contents": range(1000, 1000 + 2**18)}
    image = {"name": "image", "datatype": "INT64", "shape": [512, 512], "contents": contents}
    request = messages.ModelInferRequest(model_name="stain", inputs=[image])
    tracemalloc.start()
    try:
        read = request_of(request)
        _, highest = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(read.inputs["image"].values.ravel(), np.arange(1000, 1000 + 2**18))
    assert highest < 3 * 8 * 2**18
