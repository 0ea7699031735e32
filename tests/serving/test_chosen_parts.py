"""What of an image is asked about, at every door; and the warnings that go with every answer."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.answer_warnings import AnswerWarning
from cytoray_analysis.images import image_from_array, read_image
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.stitching import stitch
from cytoray_services.settings import load_settings
from cytoray_serving.answers import read_arrays
from cytoray_serving.headers import parse_channels, parse_warnings
from cytoray_serving.messages import warnings_text
from cytoray_serving.schema import ClassTable, ImageTable, ObjectTable
from cytoray_serving.service.assembly import Assembled
from serving_in_process import Ask, asker, config_of, in_process
from serving_samples import noise, tiff_bytes

PIXELS = noise(2, 3, 4, 48, 64)  # T C Z Y X
NAMES = ["DAPI", "GFP", "Cy5"]
STACK = tiff_bytes(PIXELS, ome=True, metadata={"axes": "TCZYX", "Channel": {"Name": NAMES}})
MASKS = np.zeros((4, 48, 64), np.uint16)
MASKS[:, 5:15, 5:15], MASKS[1, 20:30, 20:30] = 1, 2
MASKS_FILE = tiff_bytes(MASKS, metadata={"axes": "ZYX"})


@pytest.fixture(scope="module")
def service(folders: Any, tmp_path_factory: pytest.TempPathFactory) -> Assembled:
    settings = load_settings({"CYTORAY_HOME": str(tmp_path_factory.mktemp("home"))})
    config = config_of([str(folder) for folder in vars(folders).values()], pipelines={"both": ["stain", "nuclei"]})
    return in_process(settings, config)


@pytest.fixture(scope="module")
def ask(service: Assembled) -> Ask:
    return asker(service)


def labels_of(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return tifffile.imread(io.BytesIO(response.content))


def expected(segmenter: Predictor, pixels: Any) -> Any:
    return segmenter.predict(image_from_array(pixels, "YX")).answer


CHOICES: list[tuple[dict[str, Any], Any]] = [
    ({"channel": "GFP", "plane": "2", "frame": "1"}, PIXELS[1, 1, 2]),
    ({"channel": "gfp", "plane": "max", "frame": "0"}, PIXELS[0, 1].max(axis=0)),
    ({"channel": "2", "plane": "0", "frame": "0"}, PIXELS[0, 2, 0]),
    ({"input_axes": "ZCTYX", "channel": "0", "plane": "1", "frame": "3"}, PIXELS[1, 0, 3]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("choice", "pixels"), CHOICES)
def test_a_choice_in_the_address_or_the_form_is_that_of_slicing(
    ask: Ask, segmenter: Predictor, choice: dict[str, Any], pixels: Any
) -> None:
    address = ask("POST", "/models/nuclei/predict", content=STACK, params=choice)
    form = ask("POST", "/models/nuclei/predict", files={"image": ("a.tif", STACK)}, data=choice)
    np.testing.assert_array_equal(labels_of(address), expected(segmenter, pixels))
    assert form.content == address.content


def test_the_answer_repeats_name_and_number_of_a_channel(ask: Ask) -> None:
    choice = {"channel": "cy5", "plane": "0", "frame": "0"}
    response = ask(
        "POST", "/models/nuclei/predict", content=STACK, params=choice, headers={"Accept": "application/json"}
    )
    table = ObjectTable.model_validate_json(response.content)
    assert [one.model_dump() for one in table.channels] == [{"name": "Cy5", "number": 2}]
    assert json.loads(response.headers["X-Cytoray-Channels"]) == [{"name": "Cy5", "number": 2}]
    assert (table.axes, table.warnings) == ("YX", [])


def test_nothing_chosen_repeats_nothing(ask: Ask) -> None:
    response = ask("POST", "/models/nuclei/predict", content=tiff_bytes(noise(32, 32)))
    assert not {"X-Cytoray-Channels", "X-Cytoray-Warnings"} & set(response.headers)


def test_each_plane_is_one_stack_numbered_through(ask: Ask, segmenter: Predictor) -> None:
    choice = {"channel": "DAPI", "plane": "each", "frame": "1"}
    response = ask("POST", "/models/nuclei/predict", content=STACK, params=choice)
    found = read_image(response.content)
    assert (found.axes, found.shape) == ("ZYX", (4, 48, 64))
    labels = found.read()
    before = 0
    for plane, pixels in zip(labels, PIXELS[1, 0], strict=True):
        alone = expected(segmenter, pixels)
        np.testing.assert_array_equal(plane, np.where(alone > 0, alone + before, 0))
        before += int(alone.max())
    assert int(response.headers["X-Cytoray-Objects"]) == before


def test_planes_are_joined_to_the_objects_of_a_volume(ask: Ask) -> None:
    def form(accept: str, plane: str = "stitch") -> httpx.Response:
        choice = {"channel": "DAPI", "plane": plane, "frame": "1"}
        answer = ask("POST", "/models/nuclei/predict", content=STACK, params=choice, headers={"Accept": accept})
        assert answer.status_code == 200, answer.text
        return answer

    each = read_image(form("image/tiff", "each").content).read()
    found = read_image(form("image/tiff").content)
    assert (found.axes, found.shape) == ("ZYX", each.shape)
    labels = found.read()
    np.testing.assert_array_equal(labels, stitch(each)[each])
    table = ObjectTable.model_validate_json(form("application/json").content)
    assert len(table.objects) == labels.max() < each.max()
    planes = {one.label: (one.zmin, one.zmax) for one in table.objects}
    inside = {label: np.argwhere(labels == label)[:, 0] for label in planes}
    assert planes == {label: (of.min(), of.max() + 1) for label, of in inside.items()}
    assert any(of.max() > of.min() for of in inside.values())
    rows = form("text/csv").text.splitlines()
    assert rows[0].startswith("label,area,centroid_z")
    assert len(rows) - 1 == labels.max()


def test_each_frame_is_a_stack_along_time_in_every_form(ask: Ask) -> None:
    choice = {"channel": "DAPI", "plane": "0", "frame": "each"}

    def form(accept: str, model: str = "nuclei") -> httpx.Response:
        answer = ask("POST", f"/models/{model}/predict", content=STACK, params=choice, headers={"Accept": accept})
        assert answer.status_code == 200, answer.text
        return answer

    assert read_image(form("image/tiff").content).axes == "TYX"
    table = ObjectTable.model_validate_json(form("application/json").content)
    assert (table.axes, table.shape) == ("TYX", [2, 48, 64])
    rows = form("text/csv").text.splitlines()
    assert rows[0].startswith("frame,label,area")
    assert len(rows) - 1 == len(table.objects)
    assert read_arrays(form("application/x-safetensors").content).arrays["labels"].shape == (2, 48, 64)
    assert form("image/png").content.startswith(b"\x89PNG")
    stain = read_image(form("image/tiff", "stain").content)
    assert (stain.axes, stain.shape) == ("TCYX", (2, 2, 48, 64))
    assert ImageTable.model_validate_json(form("application/json", "stain").content).axes == "TCYX"


@pytest.mark.parametrize(("plane", "axes"), [("each", "TZYX"), ("0", "TYX")])
def test_boxes_of_frames_are_named_after_their_axes(ask: Ask, plane: str, axes: str) -> None:
    choice = {"channel": "DAPI", "plane": plane, "frame": "each"}

    def form(accept: str, model: str) -> bytes:
        answer = ask("POST", f"/models/{model}/predict", content=STACK, params=choice, headers={"Accept": accept})
        assert answer.status_code == 200, answer.text
        return answer.content

    cells = ClassTable.model_validate_json(form("application/json", "cells"))
    objects = ObjectTable.model_validate_json(form("application/json", "nuclei"))
    assert cells.axes == objects.axes == axes
    for row, box in [(one, one.box) for one in cells.cells] + [(one, one.bbox) for one in objects.objects]:
        names = [f"{axis}{end}" for end in ("min", "max") for axis in axes.lower()]
        assert {name: getattr(row, name) for name in names} == dict(zip(names, box, strict=True))
        assert (row.zmin is None) == ("Z" not in axes)
    assert {row.tmin for row in objects.objects} == {0, 1}
    assert read_arrays(form("application/x-safetensors", "cells")).about["box_axes"] == axes


def test_forms_of_one_plane_are_refused_for_a_stack_in_words(ask: Ask) -> None:
    choice = {"channel": "DAPI", "plane": "each", "frame": "0"}
    for model, accept in (
        ("nuclei", "application/geo+json"),
        ("cells", "image/png"),
        ("cells", "image/png; content=heatmap"),
    ):
        answer = ask("POST", f"/models/{model}/predict", content=STACK, params=choice, headers={"Accept": accept})
        assert answer.status_code == 406
        assert answer.json()["hint"]


def test_masks_follow_what_is_chosen_and_warnings_come_with_every_form(ask: Ask) -> None:
    files = {"image": ("a.tif", STACK), "masks": ("m.tif", MASKS_FILE)}
    one = ask("POST", "/models/cells/predict", files=files, data={"channel": "1", "plane": "1", "frame": "0"})
    assert [cell.number for cell in ClassTable.model_validate_json(one.content).cells] == [1, 2]
    data = {"channel": "1", "plane": "each", "frame": "0"}
    table = ClassTable.model_validate_json(ask("POST", "/models/cells/predict", files=files, data=data).content)
    assert [cell.number for cell in table.cells] == [1, 2, 3, 4, 5]
    assert table.axes == "ZYX"
    assert [one.code for one in table.warnings] == ["cells-renumbered"]
    for accept in ("text/csv", "application/json", "application/x-safetensors"):
        answer = ask("POST", "/models/cells/predict", files=files, data=data, headers={"Accept": accept})
        (warning,) = parse_warnings(answer.headers["X-Cytoray-Warnings"])
        assert warning == AnswerWarning(table.warnings[0].code, table.warnings[0].sentence)


def test_a_pipeline_takes_each_plane_through_all_its_models(ask: Ask) -> None:
    choice = {"channel": "DAPI", "plane": "each", "frame": "0"}
    stack = read_image(ask("POST", "/models/both/predict", content=STACK, params=choice).content)
    assert stack.axes == "ZYX"
    alone = ask("POST", "/models/both/predict", content=STACK, params=choice | {"plane": "0"})
    np.testing.assert_array_equal(stack.read()[0], labels_of(alone))
    found = ask(
        "POST", "/models/cells/predict", files={"image": ("a.tif", STACK)}, data=choice | {"segmentation": "nuclei"}
    )
    labels = read_image(ask("POST", "/models/nuclei/predict", content=STACK, params=choice).content).read()
    planes = [float(index) for index, plane in enumerate(labels) for _ in range(len(np.unique(plane[plane > 0])))]
    assert [cell.box[0] for cell in ClassTable.model_validate_json(found.content).cells] == planes != []


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"plane": "last"}, "plane"),
        ({"frame": "max"}, "frame"),
        ({"plane": ["1", "2"]}, "plane"),
        ({"plane": ""}, "plane"),
        ({"chanel": "DAPI"}, "chanel"),
        ({"input_axes": "ABC"}, "input_axes"),
        ({"pixel_size": "0"}, "pixel_size"),
        ({"series": "each"}, "series"),
        ({"channel": "x" * 300}, "channel"),
    ],
)
def test_what_is_no_choice_is_refused_with_its_field_wherever_it_stands(
    ask: Ask, params: dict[str, Any], field: str
) -> None:
    address = ask("POST", "/models/nuclei/predict", content=STACK, params=params)
    assert address.status_code == 400
    assert (address.json()["error"], address.json()["field"]) == ("RequestError", field)
    assert address.json()["hint"]
    form = ask("POST", "/models/nuclei/predict", files={"image": ("a.tif", STACK)}, data=params)
    assert (form.status_code, form.json()["field"]) == (400, field)
    body = {"image": "file:///a.tif"} | params
    if field != "chanel":
        assert ask("POST", "/models/nuclei/predict", json=body).json()["field"] == field


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, ["--plane", "--frame"]),
        ({"plane": "0", "frame": "0"}, ["--channel"]),
        ({"channel": "DAPI", "frame": "0"}, ["--plane"]),
        ({"channel": "RFP", "plane": "0", "frame": "0"}, ["0 DAPI, 1 GFP, 2 Cy5"]),
        ({"channel": "0", "plane": "9", "frame": "0"}, ["4 planes"]),
    ],
)
def test_what_is_not_there_is_refused_with_what_there_is(ask: Ask, params: dict[str, str], words: list[str]) -> None:
    answer = ask("POST", "/models/nuclei/predict", content=STACK, params=params)
    assert answer.status_code == 422
    assert all(word in answer.text for word in words), answer.text


def test_a_choice_in_two_places_is_refused(ask: Ask) -> None:
    files, same = {"image": ("a.tif", STACK)}, {"plane": "max"}
    answer = ask("POST", "/models/nuclei/predict", files=files, data=same, params=same)
    assert (answer.status_code, answer.json()["field"]) == (400, "plane")


@pytest.mark.parametrize(
    ("names", "data", "field"),
    [
        (["mask"], {}, "mask"),  # not an image: the name means masks
        (["file"], {"image": "cells.tif"}, "image"),  # of curl without the @
        (["image", "mask"], {}, "image"),
    ],
)
def test_files_of_a_form_are_never_taken_for_something_else(
    ask: Ask, names: list[str], data: dict[str, str], field: str
) -> None:
    files = {name: ("a.tif", tiff_bytes(noise(32, 32))) for name in names}
    answer = ask("POST", "/models/cells/predict", files=files, data=data)
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert names[-1] in answer.json()["message"]


def test_a_format_without_an_output_is_refused(ask: Ask) -> None:
    answer = ask("POST", "/models/nuclei/predict", json={"image": "file:///a.tif", "format": "csv"})
    assert (answer.status_code, answer.json()["field"]) == (400, "format")
    assert "Accept" in answer.json()["message"]


def test_models_of_movies_refuse_frames_one_by_one(ask: Ask) -> None:
    movie = tiff_bytes(noise(3, 32, 32), metadata={"axes": "TYX"})
    files = {"image": ("a.tif", movie), "masks": ("m.tif", tiff_bytes(np.ones((3, 32, 32), np.uint8)))}
    answer = ask("POST", "/models/linker/predict", files=files, data={"frame": "each"})
    assert (answer.status_code, answer.json()["field"]) == (400, "frame")


@given(st.lists(st.builds(AnswerWarning, st.text(max_size=40), st.text(max_size=3000)), max_size=30))
def test_warnings_in_a_header_are_ascii_and_bounded_and_none_is_lost_in_silence(warnings: list[AnswerWarning]) -> None:
    text = warnings_text(tuple(warnings))
    assert text.isascii()
    assert len(text) <= 4096
    assert "\n" not in text
    found = parse_warnings(text)
    assert [one.code for one in found] == [one.code for one in warnings] or found[-1].code == "more-warnings"


@pytest.mark.parametrize("header", ["", "{}", "[1]", '[{"code": 1}]', "null", "\x00"])
def test_a_malformed_header_of_warnings_is_a_warning_itself(header: str) -> None:
    assert [one.code for one in parse_warnings(header)] in (["warnings-unread"], [])
    assert parse_channels(header) == ()


def test_the_schema_reports_choices_and_warnings(service: Assembled) -> None:
    document = service.api.openapi()
    operation = document["paths"]["/models/{model}/predict"]["post"]
    assert {"channel", "plane", "frame", "series", "input_axes", "pixel_size"} <= {
        one["name"] for one in operation["parameters"]
    }
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert {"channel", "plane", "pixel_size"} <= set(form)
    assert {"X-Cytoray-Warnings", "X-Cytoray-Channels"} <= set(operation["responses"]["200"]["headers"])
    assert "warnings" in document["components"]["schemas"]["ObjectTable"]["properties"]
    assert "plane" in document["components"]["schemas"]["UriQuestion"]["properties"]
    assert "plane" in document["components"]["schemas"]["JobRequest"]["properties"]


def test_a_uri_is_asked_about_in_the_same_words(folders: Any, segmenter: Predictor, tmp_path: Path) -> None:
    from cytoray_analysis.images import write_image

    (tmp_path / "a.tif").write_bytes(STACK)
    image = image_from_array(PIXELS, "TCZYX", channels=NAMES)
    write_image(tmp_path / "a.ome.zarr", image)
    settings = load_settings({"CYTORAY_HOME": str(tmp_path / "home")})
    ask = asker(in_process(settings, config_of([str(folders.nuclei)], shared=None, allowed={"roots": [str(tmp_path)]})))
    choice = {"channel": ["GFP"], "plane": 2, "frame": "1"}
    for name in ("a.tif", "a.ome.zarr"):
        question = {"image": (tmp_path / name).as_uri()} | choice
        answer = ask("POST", "/models/nuclei/predict", json=question)
        np.testing.assert_array_equal(labels_of(answer), expected(segmenter, PIXELS[1, 1, 2]))
        assert parse_channels(answer.headers["X-Cytoray-Channels"])[0].number == 1
