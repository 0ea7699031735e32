"""An unmodified tritonclient over HTTP, and requests that nobody should send."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from cytoray_analysis.errors import UnauthorizedError
from cytoray_serving.messages import Answering
from cytoray_serving.open_inference.rest import open_inference_routes
from serving_samples import CELL_CLASSES, tiff_bytes


@pytest.fixture
def client(rest_url: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(rest_url) as client:
        yield client


def tensor(name: str, values: NDArray[Any], *, binary: bool = True) -> triton.InferInput:
    one = triton.InferInput(name, values.shape, np_to_triton_dtype(values.dtype))
    one.set_data_from_numpy(values, binary_data=binary)
    return one


def file_tensor(name: str, values: NDArray[Any]) -> triton.InferInput:
    return tensor(name, np.array([tiff_bytes(values)], dtype=object))


@pytest.mark.slow
def test_the_server_states_what_it_is_and_serves(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    described = client.get_server_metadata()
    assert described["name"] == "cytoray"
    assert "binary_tensor_data" in described["extensions"]
    assert {one["name"] for one in client.get_model_repository_index()} == {"nuclei", "stain", "cells", "linker"}


def test_a_model_states_its_tensors(client: triton.InferenceServerClient) -> None:
    assert client.is_model_ready("nuclei")
    assert client.is_model_ready("nuclei", "3")
    assert client.is_model_ready("nuclei@champion")
    assert not client.is_model_ready("nucleoli")
    assert not client.is_model_ready("nuclei", "4")
    described = client.get_model_metadata("cells")
    assert (described["name"], described["platform"]) == ("cells", "cytoray")
    assert client.get_model_metadata("nuclei@champion")["name"] == "nuclei@champion"
    assert [one["name"] for one in described["inputs"]] == ["image", "masks", "boxes"]
    assert {"name": "boxes", "datatype": "FP64", "shape": [-1, 2, 2]} in described["outputs"]
    assert client.get_model_metadata("nuclei", "3")["versions"] == ["3"]
    config = client.get_model_config("nuclei")
    assert {"name": "labels", "data_type": "TYPE_INT32", "dims": [-1, -1], "optional": False} in config["output"]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["nuclei", "stain", "cells", "linker"])
def test_what_comes_out_is_what_metadata_says(
    client: triton.InferenceServerClient, samples: dict[str, Any], model: str
) -> None:
    sample = samples[model]
    inputs = [tensor("image", sample.image)]
    if sample.masks is not None:
        inputs.append(tensor("masks", sample.masks))
    answer = client.infer(model, inputs)
    promised = client.get_model_metadata(model)["outputs"]
    assert [one["name"] for one in answer.get_response()["outputs"]] == [one["name"] for one in promised]
    for one in promised:
        given = answer.get_output(one["name"])
        assert given["datatype"] == one["datatype"]
        assert len(given["shape"]) == len(one["shape"])
        assert all(want in (-1, got) for want, got in zip(one["shape"], given["shape"], strict=True))


def test_labels_are_those_of_the_predictor(client: triton.InferenceServerClient, samples: dict[str, Any]) -> None:
    sample = samples["nuclei"]
    answer = client.infer("nuclei", [tensor("image", sample.image)], request_id="one")
    np.testing.assert_array_equal(answer.as_numpy("labels"), sample.prediction.answer)
    np.testing.assert_array_equal(answer.as_numpy("confidence"), sample.prediction.confidence)
    response = answer.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("one", "nuclei", "3")
    assert response["parameters"]["digest"] == sample.prediction.model.digest
    assert response["parameters"]["seconds_network"] > 0


def test_images_are_those_of_the_predictor(client: triton.InferenceServerClient, samples: dict[str, Any]) -> None:
    sample = samples["stain"]
    answer = client.infer("stain", [tensor("image", sample.image[np.newaxis, np.newaxis].astype(np.float32))])
    np.testing.assert_allclose(answer.as_numpy("image"), sample.prediction.answer, rtol=1e-5)


def test_classes_are_those_of_the_predictor(client: triton.InferenceServerClient, samples: dict[str, Any]) -> None:
    sample = samples["cells"]
    answer = client.infer("cells", [file_tensor("image", sample.image), file_tensor("masks", sample.masks)])
    classes = sample.prediction.answer
    np.testing.assert_array_equal(answer.as_numpy("probabilities"), classes.probabilities)
    np.testing.assert_array_equal(answer.as_numpy("boxes"), classes.cells.boxes)
    np.testing.assert_array_equal(answer.as_numpy("numbers"), classes.cells.numbers)
    assert tuple(name.decode() for name in answer.as_numpy("labels")) == classes.labels
    assert [name.decode() for name in answer.as_numpy("classes")] == CELL_CLASSES


def test_boxes_have_x_first(client: triton.InferenceServerClient, samples: dict[str, Any]) -> None:
    boxes = np.array([[5.0, 6.0, 20.0, 22.0], [20.0, 24.0, 29.0, 33.0]])
    answer = client.infer("cells", [tensor("image", samples["cells"].image), tensor("boxes", boxes)])
    np.testing.assert_array_equal(answer.as_numpy("boxes")[0], [[6, 5], [22, 20]])
    np.testing.assert_array_equal(answer.as_numpy("numbers"), [1, 2])


def test_lineages_are_those_of_the_predictor(client: triton.InferenceServerClient, samples: dict[str, Any]) -> None:
    sample = samples["linker"]
    answer = client.infer("linker", [tensor("image", sample.image), tensor("masks", sample.masks)])
    np.testing.assert_array_equal(answer.as_numpy("masks"), sample.prediction.answer.tracked[:])
    np.testing.assert_array_equal(answer.as_numpy("tracks"), sample.prediction.answer.table)


@pytest.mark.parametrize("binary_input", [True, False])
@pytest.mark.parametrize("binary_output", [True, False])
@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
def test_json_and_binary_tensors_say_the_same(
    client: triton.InferenceServerClient,
    samples: dict[str, Any],
    binary_input: bool,
    binary_output: bool,
    coding: str | None,
) -> None:
    sample = samples["nuclei"]
    answer = client.infer(
        "nuclei",
        [tensor("image", sample.image, binary=binary_input)],
        model_version="3",
        outputs=[triton.InferRequestedOutput("labels", binary_data=binary_output)],
        request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )
    np.testing.assert_array_equal(answer.as_numpy("labels"), sample.prediction.answer)
    assert answer.as_numpy("confidence") is None


def test_many_requests_at_once_are_answered_each_with_its_own(rest_url: str, samples: dict[str, Any]) -> None:
    sample = samples["nuclei"]
    with triton.InferenceServerClient(rest_url, concurrency=4) as client:
        waiting = [client.async_infer("nuclei", [tensor("image", sample.image)], request_id=str(n)) for n in range(8)]
        answers = [one.get_result() for one in waiting]
    assert [answer.get_response()["id"] for answer in answers] == [str(n) for n in range(8)]


@pytest.mark.parametrize(
    ("inputs", "options", "status", "says"),
    [
        ([tensor("picture", np.zeros((8, 8), np.uint8))], {}, "400", "image, masks, boxes"),
        ([], {}, "400", "input image"),
        ([tensor("image", np.zeros((2, 3, 4, 8, 8), np.uint8))], {}, "400", "YX or CYX"),
        ([tensor("image", np.zeros((0, 8), np.uint8))], {}, "400", "YX or CYX"),
        ([tensor("image", np.zeros((5, 64, 64), np.uint8))], {}, "422", "channels"),
        ([tensor("image", np.full((64, 64), np.nan, np.float32))], {}, "422", "NaN"),
        ([tensor("image", np.array([b"no image"], object))], {}, "422", "known format"),
        ([tensor("image", np.array([b"one", b"two"], object))], {}, "400", "one file"),
        ([tensor("image", np.zeros((64, 64), np.uint8))], {"timeout": 1}, "408", "within"),
        ([tensor("image", np.zeros((64, 64), np.uint8))], {"timeout": -1}, "400", "microseconds"),
        ([tensor("image", np.zeros((64, 64), np.uint8))], {"parameters": {"axes": "XY"}}, "400", "axes"),
        ([tensor("image", np.zeros((64, 64), np.uint8))], {"parameters": {"segmentation": 3}}, "400", "text"),
        ([tensor("image", np.zeros((3000, 3000), np.uint8))], {}, "413", "at most"),
        (
            [tensor("image", np.zeros((64, 64), np.uint8))],
            {"outputs": [triton.InferRequestedOutput("tracks")]},
            "400",
            "labels, confidence",
        ),
        (
            [tensor("image", np.zeros((64, 64), np.uint8)), tensor("masks", np.zeros((64, 64), np.uint8))],
            {},
            "400",
            "masks",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(
    client: triton.InferenceServerClient, inputs: list[Any], options: dict[str, Any], status: str, says: str
) -> None:
    with pytest.raises(InferenceServerException, match=says) as caught:
        client.infer("nuclei", inputs, **options)
    assert caught.value.status() == status


def test_an_unknown_model_is_refused_with_its_hint(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match=r"no model 'nucleoli' \(ask for another\)") as caught:
        client.infer("nucleoli", [tensor("image", np.zeros((8, 8), np.uint8))])
    assert caught.value.status() == "404"


@pytest.mark.slow
def test_a_bomb_is_refused_before_it_is_whole(rest_url: str) -> None:
    body = gzip.compress(bytes(200 * 2**20), compresslevel=1)
    address = f"http://{rest_url}/v2/models/nuclei/infer"
    answer = httpx.post(address, content=body, headers={"Content-Encoding": "gzip"}, timeout=60)
    assert (answer.status_code, set(answer.json())) == (413, {"error"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"null", {}),
        (b"[" * 100_000, {}),
        (b'{"inputs": [{"name": "image", "shape": [1, 1], "datatype": "UINT8", "data": [256]}]}', {}),
        (b'{"inputs": [{"name": "image", "shape": [1, 1], "datatype": "UINT8", "data": [[0.5]]}]}', {}),
        (b'{"inputs": [{"name": "image", "shape": [1, 2], "datatype": "UINT8", "data": [1, [2]]}]}', {}),
        (b'{"inputs": [{"name": "image", "shape": [1, 1], "datatype": "COMPLEX", "data": [1]}]}', {}),
        (b'{"inputs": [{"name": "image", "shape": [-1, -1], "datatype": "UINT8", "data": [1]}]}', {}),
        (b'{"inputs": [{"name": "image", "shape": [1, 1], "datatype": "UINT8"}]}', {}),
        (b'{"inputs": []}', {"Inference-Header-Content-Length": "99"}),
        (b'{"inputs": []}', {"Inference-Header-Content-Length": "-1"}),
        (b'{"inputs": []}', {"Inference-Header-Content-Length": "1e1"}),
        (b'{"inputs": []}', {"Inference-Header-Content-Length": "9" * 5000}),
        (b'{"inputs": []}   ', {"Inference-Header-Content-Length": "14"}),
        (b'{"inputs": []}', {"Content-Encoding": "gzip"}),
        (gzip.compress(b'{"inputs": []}', mtime=0)[:-4], {"Content-Encoding": "gzip"}),
        (b'{"inputs": []}', {"Content-Encoding": "br"}),
    ],
)
def test_hostile_bodies_and_headers_are_malformed_requests(rest_url: str, body: bytes, headers: dict[str, str]) -> None:
    answer = httpx.post(f"http://{rest_url}/v2/models/nuclei/infer", content=body, headers=headers)
    assert (answer.status_code, set(answer.json())) == (400, {"error"})


def test_a_stack_can_be_named_by_its_axes(rest_url: str) -> None:
    request = {
        "inputs": [{"name": "image", "shape": [3, 64, 64], "datatype": "UINT8", "data": [0] * (3 * 64 * 64)}],
        "parameters": {"axes": "ZYX"},
    }
    answer = httpx.post(f"http://{rest_url}/v2/models/nuclei/infer", json=request)
    assert answer.status_code == 422  # this model takes no stack, and sees that it is one
    assert "Z=3" in answer.json()["error"]


def test_the_openapi_document_declares_both_forms_of_a_body(rest_url: str) -> None:
    document = httpx.get(f"http://{rest_url}/openapi.json").json()
    infer = document["paths"]["/v2/models/{model}/versions/{version}/infer"]["post"]
    assert set(infer["requestBody"]["content"]) == {"application/json", "application/octet-stream"}
    assert set(infer["responses"]["200"]["content"]) == {"application/json", "application/octet-stream"}
    assert {one["name"] for one in infer["parameters"] if one["in"] == "path"} == {"model", "version"}
    assert "$defs" not in json.dumps(document)


def test_who_may_not_ask_gets_an_error_of_the_protocol(answering: Answering) -> None:
    def refuse() -> None:
        raise UnauthorizedError("expected a token", hint="send one")

    def client(**options: Any) -> TestClient:
        api = FastAPI()
        api.include_router(open_inference_routes(lambda _: answering, require_ready=answering.statuses, **options))
        return TestClient(api)

    guarded = client(guard=[Depends(refuse)])
    assert guarded.get("/v2/health/live").status_code == 200
    assert guarded.get("/v2/health/ready").status_code == 200
    for answer in (guarded.get("/v2"), guarded.get("/v2/models/nuclei"), guarded.post("/v2/models/nuclei/infer")):
        assert (answer.status_code, answer.json()) == (401, {"error": "expected a token (send one)"})
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


class Never:
    """Answers nobody, and remembers that it was told to stop."""

    def __init__(self, answering: Answering) -> None:
        self.status, self.statuses, self.made = answering.status, answering.statuses, answering.made
        self.begun, self.stopped = threading.Event(), threading.Event()

    async def answer(self, *arguments: Any, **options: Any) -> Any:
        try:
            self.begun.set()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.stopped.set()
            raise


@pytest.mark.slow
def test_no_one_works_for_a_caller_who_has_gone(
    answering: Answering, running: Callable[[FastAPI], AbstractContextManager[str]]
) -> None:
    never = Never(answering)
    api = FastAPI()
    api.include_router(open_inference_routes(lambda _: never, require_ready=never.statuses))
    with running(api) as url:
        image = {"name": "image", "shape": [8, 8], "datatype": "UINT8", "data": [1] * 64}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"http://{url}/v2/models/nuclei/infer", json={"inputs": [image]}, timeout=0.5)
        assert never.begun.wait(5)
        assert never.stopped.wait(5)
