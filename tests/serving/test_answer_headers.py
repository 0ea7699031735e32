"""Every field of the client's answer says what the gateway said."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.errors import PlatformError
from cytoray_analysis.predictor import Predictor
from cytoray_services.settings import load_settings
from cytoray_serving.client import Client
from cytoray_serving.headers import ANSWER_HEADERS, answer_headers, described, read_answer
from cytoray_serving.served_answer import ServedAnswer
from cytoray_serving.service.assembly import Assembled
from serving_in_process import config_of, in_process
from serving_samples import GOOD, noise, tiff_bytes

CELL_MASKS = np.zeros((64, 96), np.uint16)
CELL_MASKS[5:15, 10:22], CELL_MASKS[30:44, 50:60] = 3, 7


class Application(httpx.BaseTransport):
    """The gateway in this process, as a client of the network reaches it."""

    def __init__(self, service: Assembled) -> None:
        self._transport = httpx.ASGITransport(service.api, raise_app_exceptions=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def send() -> httpx.Response:
            sent = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
            response = await self._transport.handle_async_request(sent)
            return httpx.Response(response.status_code, headers=response.headers, content=await response.aread())

        return asyncio.run(send())


@pytest.fixture(scope="module")
def client(folders: Any, registered: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    home = shutil.copytree(registered, tmp_path_factory.mktemp("headers") / "home")
    models = [str(folders.nuclei), str(folders.cells), str(folders.stain)]
    service = in_process(load_settings({"CYTORAY_HOME": str(home)}), config_of(models))
    with Client("http://service", transport=Application(service)) as client:
        yield client


@pytest.mark.slow
def test_an_answer_of_a_bundle_has_every_field(client: Client, folders: Any) -> None:
    answer = client.predict(GOOD, model="nuclei")
    assert answer.body.startswith(b"II*\0")
    assert answer.media_type == "image/tiff"
    assert (answer.model, answer.version) == ("nuclei", None)
    assert answer.digest == Bundle.load(folders.nuclei).digest
    assert answer.kind == "labels"
    assert answer.objects == len(np.unique(answer.labels())) - 1 > 0
    assert (answer.steps, answer.segmentation) == ((), None)
    assert set(answer.seconds) == {"read", "queue", "network", "decode", "encode", "total"}
    assert 0 < answer.seconds["network"] <= answer.seconds["total"]


def test_an_answer_of_the_registry_names_its_version(client: Client) -> None:
    answer = client.predict(GOOD, model="nuclei", version="2", accept="application/json")
    assert (answer.model, answer.version, answer.media_type) == ("nuclei", "2", "application/json")
    assert answer.table()["model"] == {"name": "nuclei", "version": "2", "digest": answer.digest}


def test_an_answer_names_the_version_that_found_the_objects(client: Client, segmenter: Predictor) -> None:
    answer = client.predict(GOOD, model="cells", segmentation="nuclei@champion")
    assert (answer.kind, answer.media_type) == ("class", "application/json")
    assert (answer.steps, answer.segmentation) == (("nuclei/1",), "nuclei/1")
    assert answer.objects == len(answer.table()["cells"]) > 0
    told = client.predict(GOOD, model="cells", masks=tiff_bytes(CELL_MASKS))
    assert (told.objects, told.segmentation) == (2, None)


@pytest.mark.parametrize("kind", [np.int64, np.float32])
def test_numbers_of_numpy_are_sent_as_numbers(client: Client, kind: type) -> None:
    boxes = [[2, 3, 20, 24]]
    numbers: Any = np.array(boxes, kind)
    told = client.predict(GOOD, model="cells", boxes=numbers)
    assert told.table()["cells"] == client.predict(GOOD, model="cells", boxes=boxes).table()["cells"]
    stack = tiff_bytes(np.stack([noise(32, 32), noise(32, 32, seed=1)]), ome=True, metadata={"axes": "CYX"})
    channels: list[Any] = [np.int64(1), np.array([1]), (one for one in [1])]
    for channel in channels:
        assert [one.number for one in client.predict(stack, model="nuclei", channel=channel).channels] == [1]
    assert client.predict(GOOD, model="nuclei", version=2).version == "2"


def test_an_answer_that_is_an_image_has_no_objects(client: Client) -> None:
    answer = client.predict(GOOD, model="stain")
    assert (answer.kind, answer.objects) == ("image", 0)
    assert answer.image().channels


def test_each_field_of_an_answer_has_one_header_and_each_header_is_described() -> None:
    assert sorted([header.field for header in ANSWER_HEADERS] + ["body"]) == sorted(
        field.name for field in fields(ServedAnswer)
    )
    assert set(described()) == {header.name for header in ANSWER_HEADERS} - {"Content-Type"}


@pytest.mark.parametrize("headers", [{}, {"X-Cytoray-Model": "a", "X-Cytoray-Objects": "many"}])
def test_another_server_is_not_taken_for_a_service(headers: dict[str, str]) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, content=b"<html>"))
    with Client("http://service", transport=transport) as client:
        with pytest.raises(PlatformError, match="http://service"):
            client.predict(GOOD, model="nuclei")
        with pytest.raises(PlatformError, match="http://service"):
            client.models()


def test_what_is_written_is_read(client: Client) -> None:
    from cytoray_serving.messages import Answer

    answer = Answer(
        b"b", "text/csv", "cells", "3", "d1", "class", 4, ("nuclei/1", "stain/2"), 1.0, 1, 1, {"read": 0.25}
    )
    read = read_answer(answer.body, httpx.Headers(answer_headers(answer)))
    assert read == ServedAnswer(
        b"b", "text/csv", "cells", "3", "d1", "class", 4, ("nuclei/1", "stain/2"), {"read": 0.25}
    )
    assert read.segmentation == "stain/2"
