"""Models of every kind through the gateway, given the objects as masks, boxes or another model."""

import asyncio
import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from cytoray_analysis.cells import cells_from_boxes
from cytoray_analysis.images import image_from_array, read_image
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.selection import Selection
from cytoray_analysis.tracking.ctc import read_lineage
from cytoray_services.http.errors import ErrorBody
from cytoray_services.registry import Registry
from cytoray_services.settings import load_settings
from cytoray_serving.messages import Question
from cytoray_serving.schema import ClassTable, ModelList, TrackTable
from serving_in_process import Ask, asker, config_of, in_process
from serving_samples import GOOD, moving_squares, noise, tiff_bytes

MOVIE, MASKS = moving_squares()
MOVIE_FILE = tiff_bytes(MOVIE, metadata={"axes": "TYX"})
MASKS_FILE = tiff_bytes(MASKS, metadata={"axes": "TYX"})
CELL_MASKS = np.zeros((64, 96), np.uint16)
CELL_MASKS[5:15, 10:22], CELL_MASKS[30:44, 50:60] = 3, 7
BOXES = "[[10, 5, 22, 15], [50, 30, 60, 44]]"


@pytest.fixture(scope="module")
def ask(folders: Any, registered: Path, tmp_path_factory: pytest.TempPathFactory) -> Ask:
    home = shutil.copytree(registered, tmp_path_factory.mktemp("objects") / "home")
    settings = load_settings({"CYTORAY_HOME": str(home)})
    return asker(in_process(settings, config_of([str(folder) for folder in vars(folders).values()])))


def predict(
    ask: Ask, model: str, image: bytes, accept: str = "*/*", masks: bytes | None = None, **fields: str
) -> httpx.Response:
    files = {"image": ("image.tif", image)} | ({} if masks is None else {"masks": ("masks.tif", masks)})
    return ask("POST", f"/models/{model}/predict", files=files, data=fields, headers={"Accept": accept})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "kind", "media_type"),
    [
        ("nuclei", "labels", "image/tiff"),
        ("stain", "image", "image/tiff"),
        ("cells", "class", "application/json"),
    ],
)
def test_each_model_answers_an_image_in_its_own_way(ask: Ask, model: str, kind: str, media_type: str) -> None:
    response = ask("POST", f"/models/{model}/predict", content=GOOD)
    assert response.status_code == 200, response.text
    assert (response.headers["X-Cytoray-Kind"], response.headers["Content-Type"]) == (kind, media_type)


@pytest.mark.slow
def test_models_say_what_their_answers_are(ask: Ask) -> None:
    listed = ModelList.model_validate_json(ask("GET", "/models").content).models
    assert {one.name: one.kind for one in listed} == {
        "nuclei": "labels",
        "stain": "image",
        "cells": "class",
        "linker": "lineage",
    }
    assert {one.media_types[0] for one in listed} == {"image/tiff", "application/json", "application/zip"}


def test_a_predicted_image_is_that_of_the_predictor(ask: Ask, stainer: Predictor) -> None:
    response = ask("POST", "/models/stain/predict", content=GOOD)
    np.testing.assert_array_equal(read_image(response.content).read(), stainer.predict(read_image(GOOD)).answer)
    assert response.headers["X-Cytoray-Objects"] == "0"


def test_cells_are_asked_about_by_masks(ask: Ask, classifier: Predictor) -> None:
    response = predict(ask, "cells", GOOD, masks=tiff_bytes(CELL_MASKS))
    table = ClassTable.model_validate_json(response.content)
    assert [cell.number for cell in table.cells] == [3, 7]
    assert table.cells[0].box == [5, 10, 15, 22]
    expected = classifier.predict(read_image(GOOD), CELL_MASKS).answer.probabilities
    np.testing.assert_allclose([cell.probabilities for cell in table.cells], expected, rtol=1e-4)


@pytest.mark.parametrize("as_file", [False, True])
def test_cells_are_asked_about_by_boxes_with_x_first(ask: Ask, classifier: Predictor, as_file: bool) -> None:
    files = {"image": ("image.tif", GOOD)} | ({"boxes": ("boxes.json", BOXES.encode())} if as_file else {})
    response = ask("POST", "/models/cells/predict", files=files, data={} if as_file else {"boxes": BOXES})
    table = ClassTable.model_validate_json(response.content)
    assert [cell.box for cell in table.cells] == [[5, 10, 15, 22], [30, 50, 44, 60]]
    sides = [[cell.xmin, cell.ymin, cell.xmax, cell.ymax] for cell in table.cells]
    assert sides == json.loads(BOXES)  # they come out under the names that they go in by
    assert [cell.zmin for cell in table.cells] == [None, None]
    cells = cells_from_boxes([((5, 10), (15, 22)), ((30, 50), (44, 60))])
    expected = classifier.predict(read_image(GOOD), cells).answer.probabilities
    np.testing.assert_allclose([cell.probabilities for cell in table.cells], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("field", "size", "code"), [("boxes", 2**20 + 1, 413), ("channel", 2**20 + 1, 413), ("segmentation", 2000, 400)]
)
def test_text_of_a_form_is_no_longer_than_may_be(
    ask: Ask, field: str, size: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cytoray_serving.gateway.bodies.LARGEST_BOXES", 2**20, raising=False)
    files = {"image": ("image.tif", GOOD), field: ("text", b" " * size)}
    response = ask("POST", "/models/cells/predict", files=files)
    assert (response.status_code, response.json()["field"]) == (code, field)


def test_cells_are_found_by_a_segmentation_model_of_the_registry(ask: Ask, segmenter: Predictor) -> None:
    response = predict(ask, "cells", GOOD, segmentation="nuclei@champion")
    found = segmenter.predict(read_image(GOOD)).objects
    assert response.headers["X-Cytoray-Steps"] == "nuclei/1"
    assert response.headers["X-Cytoray-Objects"] == str(found)
    assert "step1;dur=" in response.headers["Server-Timing"]


@pytest.mark.slow
def test_a_heat_map_is_asked_for_by_its_media_type(ask: Ask) -> None:
    response = predict(ask, "cells", GOOD, "image/png; content=heatmap", boxes=BOXES)
    assert response.headers["Content-Type"] == "image/png; content=heatmap"
    assert response.content.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("movie", "masks"),
    [
        (MOVIE_FILE, MASKS_FILE),
        (tiff_bytes(MOVIE), tiff_bytes(MASKS)),  # plain files, which are read as stacks
        (tiff_bytes(MOVIE, imagej=True, metadata={"axes": "TYX"}), tiff_bytes(MASKS)),
    ],
    ids=["named axes", "plain", "imagej"],
)
def test_a_movie_is_linked_by_its_masks(
    ask: Ask, linker: Predictor, tmp_path: Path, movie: bytes, masks: bytes
) -> None:
    response = predict(ask, "linker", movie, masks=masks)
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        archive.extractall(tmp_path)
    expected = linker.predict(image_from_array(MOVIE, "TYX"), MASKS).answer
    np.testing.assert_array_equal(read_lineage(tmp_path).table, expected.table)
    assert response.headers["X-Cytoray-Objects"] == str(len(expected.track_id))


def test_a_movie_is_linked_through_a_segmentation_model(ask: Ask, linker: Predictor, segmenter: Predictor) -> None:
    response = predict(ask, "linker", MOVIE_FILE, "application/json", segmentation="nuclei@champion")
    assert response.headers["X-Cytoray-Steps"] == "nuclei/1"
    masks = np.stack([segmenter.predict(image_from_array(frame, "YX")).answer for frame in MOVIE])
    expected = linker.predict(image_from_array(MOVIE, "TYX"), masks).answer
    table = TrackTable.model_validate_json(response.content)
    assert [row.track for row in table.tracks] == expected.track_id.tolist()


VOLUME = tiff_bytes(noise(4, 64, 96), metadata={"axes": "ZYX"}, ome=True)
NEGATIVE = tiff_bytes(np.where(CELL_MASKS, CELL_MASKS.astype(np.int16), -1).astype(np.int16))


@pytest.mark.parametrize(
    ("model", "status", "error", "field", "parts"),
    [
        ("nuclei", 400, "RequestError", "masks", {"masks": tiff_bytes(CELL_MASKS)}),
        ("stain", 400, "RequestError", "boxes", {"boxes": BOXES}),
        ("nuclei", 400, "RequestError", "segmentation", {"segmentation": "nuclei"}),
        ("cells", 400, "RequestError", "boxes", {"masks": tiff_bytes(CELL_MASKS), "boxes": BOXES}),
        ("cells", 400, "RequestError", "boxes", {"boxes": "10, 5, 22, 15"}),
        ("cells", 400, "RequestError", "boxes", {"boxes": "[[10, 5, 22]]"}),
        ("cells", 400, "RequestError", "boxes", {"boxes": '[["a", 5, 22, 15]]'}),
        ("cells", 400, "RequestError", "boxes", {"boxes": "[[22, 5, 10, 15]]"}),
        ("cells", 400, "RequestError", "boxes", {"boxes": "[[0, 0, Infinity, 10]]"}),
        ("cells", 400, "RequestError", "boxes", {"boxes": "[[200, 5, 220, 15]]"}),
        ("cells", 400, "RequestError", "boxes", {"boxes": "[[10, 5, 1, 22, 15, 3]]"}),
        ("cells", 422, "ImageError", "objects", {"masks": tiff_bytes(CELL_MASKS[:-1])}),
        ("cells", 422, "ImageError", "labels", {"masks": tiff_bytes(CELL_MASKS.astype(np.float32) / 2)}),
        ("cells", 422, "ImageError", "labels", {"masks": NEGATIVE}),
        ("cells", 422, "ImageError", "labels", {"masks": tiff_bytes(CELL_MASKS.astype(np.uint64) * 2**54)}),
        ("cells", 422, "UnreadableImageError", None, {"masks": b"no image"}),
        ("cells", 422, "AxesError", "axes", {"image": VOLUME, "boxes": BOXES}),
        ("cells", 404, "ModelNotFoundError", None, {"segmentation": "nucleoli@champion"}),
        ("cells", 404, "ModelNotFoundError", None, {"segmentation": "nuclei/9"}),
        ("cells", 404, "ModelNotFoundError", None, {"segmentation": "/etc"}),
        ("cells", 404, "ModelNotFoundError", None, {"segmentation": ""}),
        ("cells", 400, "RequestError", "box", {"box": BOXES}),
        ("linker", 400, "RequestError", "masks", {"image": MOVIE_FILE}),
        ("linker", 400, "RequestError", "boxes", {"image": MOVIE_FILE, "boxes": BOXES}),
        ("linker", 422, "AxesError", "masks", {"image": MOVIE_FILE, "masks": tiff_bytes(MASKS[:2])}),
        ("linker", 422, "ImageError", "labels", {"image": MOVIE_FILE, "masks": tiff_bytes(MOVIE / 2 + 0.25)}),
        ("linker", 404, "ModelNotFoundError", None, {"image": MOVIE_FILE, "segmentation": "nucleoli"}),
    ],
)
def test_objects_that_do_not_suit_are_refused_with_a_reason(
    ask: Ask, model: str, status: int, error: str, field: str | None, parts: dict[str, Any]
) -> None:
    files = {"image": ("image.tif", parts.get("image", GOOD))}
    files |= {"masks": ("masks.tif", parts["masks"])} if "masks" in parts else {}
    texts = {name: value for name, value in parts.items() if isinstance(value, str)}
    response = ask("POST", f"/models/{model}/predict", files=files, data=texts)
    body = ErrorBody.model_validate_json(response.content)
    assert (response.status_code, body.error) == (status, error), body
    assert field is None or body.field == field
    assert body.hint


def test_a_form_of_another_kind_is_not_acceptable(ask: Ask) -> None:
    response = ask("POST", "/models/cells/predict", content=GOOD, headers={"Accept": "image/tiff"})
    assert response.status_code == 406
    assert "application/json" in response.json()["message"]


def test_a_model_of_another_kind_cannot_find_the_objects(folders: Any, ask: Ask) -> None:
    refused = predict(ask, "cells", GOOD, segmentation="stain")
    assert refused.status_code == 400
    assert "'image'" in refused.json()["message"]


@pytest.mark.slow
def test_a_moved_alias_is_followed_by_the_model_that_finds_the_objects(
    folders: Any, registered: Path, tmp_path: Path
) -> None:
    settings = load_settings({"CYTORAY_HOME": str(shutil.copytree(registered, tmp_path / "home"))})
    service = in_process(settings, config_of([str(folders.cells)]))

    async def ask_twice() -> list[tuple[str, ...]]:
        question = Question(GOOD, segmentation="nuclei@champion")
        before = await service.dispatch.answer("cells", None, question)
        Registry.open(settings).promote("nuclei", "2")
        await service.routes.follow()
        after = await service.dispatch.answer("cells", None, question)
        return [before.steps, after.steps]

    assert asyncio.run(ask_twice()) == [("nuclei/1",), ("nuclei/2",)]


def test_openapi_states_what_may_be_sent_beside_the_image(ask: Ask) -> None:
    document = ask("GET", "/openapi.json").json()
    form = document["paths"]["/models/{model}/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]
    told = {"image", "masks", "boxes", "segmentation", *Selection.model_fields}
    assert set(form["schema"]["properties"]) == told
    content = document["paths"]["/models/{model}/predict"]["post"]["responses"]["200"]["content"]
    tables = [one["$ref"].rpartition("/")[2] for one in content["application/json"]["schema"]["oneOf"]]
    assert tables == ["ObjectTable", "ImageTable", "ClassTable", "TrackTable"]
    assert json.dumps(document)
