"""The gateway over a real model, in this process, without Ray."""

import asyncio
import io
import json
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tifffile

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.errors import CytorayError, PlatformError
from cytoray_analysis.images import read_image
from cytoray_analysis.predictor import Predictor
from cytoray_services.http.errors import ErrorBody
from cytoray_services.settings import load_settings
from cytoray_serving.answers import forms_of, media_types
from cytoray_serving.client import parse_server_timing
from cytoray_serving.messages import Answer, Question
from cytoray_serving.schema import FeatureCollection, ModelList, ModelStatus, ObjectTable
from cytoray_serving.service.assembly import Assembled
from serving_in_process import Ask, InProcess, asker, config_of, in_process
from serving_samples import GOOD, WrongRequest, noise, tiff_bytes


class Broken(InProcess):
    """Replicas whose process is gone, or whose code is wrong."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def answer(self, reference: str, question: Question, given: Any) -> Answer | CytorayError:
        raise self._error

    async def alive(self) -> bool:
        return False


@pytest.fixture(scope="module")
def replicas() -> InProcess:
    return InProcess(load_settings())


@pytest.fixture(scope="module")
def service(bundle_folder: Path, replicas: InProcess) -> Assembled:
    return in_process(load_settings(), config_of([str(bundle_folder)], shared=None), replicas)


@pytest.fixture(scope="module")
def ask(service: Assembled) -> Ask:
    return asker(service)


def predict(ask: Ask, body: bytes = GOOD, accept: str = "*/*", **options: Any) -> httpx.Response:
    return ask("POST", "/models/nuclei/predict", content=body, headers={"Accept": accept}, **options)


@pytest.mark.slow
def test_the_answer_is_that_of_the_predictor(ask: Ask, bundle_folder: Path) -> None:
    pixels = noise(100, 130, seed=3)
    response = predict(ask, tiff_bytes(pixels))
    expected = Predictor(Bundle.load(bundle_folder)).predict(read_image(tiff_bytes(pixels)))
    assert response.status_code == 200
    assert expected.objects > 0
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(response.content)), expected.answer)
    assert response.headers["X-Cytoray-Objects"] == str(expected.objects)


@pytest.mark.parametrize("form", forms_of("labels").values(), ids=forms_of("labels").keys())
def test_accept_chooses_the_form(ask: Ask, form: Any) -> None:
    response = predict(ask, accept=form.media_type)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == form.media_type
    if form.name == "json":
        assert ObjectTable.model_validate_json(response.content).model.name == "nuclei"
    elif form.name == "geojson":
        assert FeatureCollection.model_validate_json(response.content).features
    else:
        assert response.content.startswith((b"II*\0", b"\x89PNG", b"label,area")) or form.name in ("arrays", "arrow")


def test_headers_name_model_and_seconds_per_stage(ask: Ask, bundle_folder: Path) -> None:
    headers = predict(ask).headers
    assert headers["X-Cytoray-Model"] == "nuclei"
    assert headers["X-Cytoray-Digest"] == Bundle.load(bundle_folder).digest
    assert "X-Cytoray-Version" not in headers
    seconds = parse_server_timing(headers["Server-Timing"])
    assert set(seconds) == {"read", "queue", "network", "decode", "encode", "total"}
    assert sum(seconds.values()) - seconds["total"] <= seconds["total"] * 1.01 + 1e-4


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", "application/x-www-form-urlencoded", None])
def test_images_are_recognised_by_their_content(ask: Ask, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    assert ask("POST", "/models/nuclei/predict", content=GOOD, headers=headers).status_code == 200


def test_a_form_with_one_file_is_answered_like_its_bytes(ask: Ask) -> None:
    form = ask("POST", "/models/nuclei/predict", files={"image": ("cells.tif", GOOD, "image/tiff")})
    assert form.status_code == 200
    assert form.content == predict(ask).content


def test_two_files_in_a_form_are_refused(ask: Ask) -> None:
    response = ask("POST", "/models/nuclei/predict", files={"a": ("a.tif", GOOD), "b": ("b.tif", GOOD)})
    assert response.status_code == 400
    assert "one file" in response.json()["message"]


def test_wrong_requests_are_refused_with_a_reason(ask: Ask, wrong_request: WrongRequest) -> None:
    headers = {"Content-Type": wrong_request.content_type, "Accept": wrong_request.accept}
    response = ask("POST", f"/models/{wrong_request.model}/predict", content=wrong_request.body, headers=headers)
    body = ErrorBody.model_validate_json(response.content)
    assert (response.status_code, body.error) == (wrong_request.status, wrong_request.error or body.error)
    assert response.headers["Content-Type"] == "application/json"
    assert predict(ask).status_code == 200


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("DELETE", "/models", 405)])
def test_unknown_addresses_get_the_same_kind_of_body(ask: Ask, method: str, path: str, status: int) -> None:
    response = ask(method, path)
    assert response.status_code == status
    assert path in ErrorBody.model_validate_json(response.content).message


def test_a_body_without_a_declared_length_is_cut_off_at_the_limit(ask: Ask) -> None:
    async def endless() -> Any:
        while True:
            yield bytes(2**16)

    assert predict(ask, endless()).status_code == 413


def test_health_and_models_say_what_is_served(ask: Ask) -> None:
    assert ask("GET", "/health/live").json() == {"status": "alive"}
    assert ask("GET", "/health/ready").json() == {"status": "ready", "models": ["nuclei"]}
    (listed,) = ModelList.model_validate_json(ask("GET", "/models").content).models
    assert listed == ModelStatus.model_validate_json(ask("GET", "/models/nuclei").content)
    assert (listed.task, listed.axes, listed.registry) == ("segmentation", "CYX", "fixed")
    assert (listed.kind, listed.media_types[0]) == ("labels", "image/tiff")
    assert ask("GET", "/models/nucleoli").status_code == 404


def test_metrics_count_requests_stages_and_pixels(bundle_folder: Path, replicas: InProcess) -> None:
    ask = asker(in_process(load_settings(), config_of([str(bundle_folder)], shared=None), replicas))
    predict(ask)
    predict(ask, b"no image")
    ask("POST", "/models/nucleoli/predict", content=GOOD)
    text = ask("GET", "/metrics").text
    assert 'cytoray_requests_total{model="nuclei",status="200"} 1.0' in text
    assert 'cytoray_requests_total{model="nuclei",status="422"} 1.0' in text
    assert 'cytoray_requests_total{model="unknown",status="404"} 1.0' in text
    assert 'cytoray_stage_seconds_count{model="nuclei",stage="network"} 1.0' in text
    assert 'cytoray_megapixels_total{model="nuclei"} 0.006144' in text
    assert 'cytoray_requests_in_flight{model="nuclei"} 0.0' in text
    assert "cytoray_model_info{" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "status", "name"),
    [(PlatformError("the model is restarting"), 503, "PlatformError"), (KeyError("x"), 500, "CytorayError")],
)
def test_faults_of_the_service_are_no_secret_and_no_traceback(
    bundle_folder: Path, error: Exception, status: int, name: str
) -> None:
    ask = asker(in_process(load_settings(), config_of([str(bundle_folder)]), Broken(error)))
    response = predict(ask)
    assert (response.status_code, ErrorBody.model_validate_json(response.content).error) == (status, name)
    assert ("Retry-After" in response.headers) == (status == 503)
    assert "KeyError" not in response.text
    assert ask("GET", "/health/ready").status_code == 503
    assert f'cytoray_requests_total{{model="nuclei",status="{status}"}} 1.0' in ask("GET", "/metrics").text


def test_openapi_names_media_types_and_error_bodies(ask: Ask) -> None:
    document = ask("GET", "/openapi.json").json()
    operation = document["paths"]["/models/{model}/predict"]["post"]
    assert set(operation["responses"]["200"]["content"]) == set(media_types())
    for status in ("400", "404", "406", "413", "422", "503"):
        schema = operation["responses"][status]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/ErrorBody"}
    for reference in _references(document):
        assert reference.rpartition("/")[2] in document["components"]["schemas"]


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def test_many_requests_at_once_get_their_own_answers(service: Assembled, bundle_folder: Path) -> None:
    pictures = [noise(64 + 8 * (number % 3), 64, seed=number) for number in range(12)]

    async def send_all() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(service.api), base_url="http://service") as client:
            requests: list[Awaitable[httpx.Response]] = [
                client.post("/models/nuclei/predict", content=tiff_bytes(picture)) for picture in pictures
            ]
            return await asyncio.gather(*requests)

    predictor = Predictor(Bundle.load(bundle_folder))
    for picture, response in zip(pictures, asyncio.run(send_all()), strict=True):
        expected = predictor.predict(read_image(tiff_bytes(picture))).answer
        found = tifffile.imread(io.BytesIO(response.content))
        assert np.mean(found == expected) > 0.99, json.dumps(dict(response.headers))
