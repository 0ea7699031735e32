"""Data sets over HTTP: the way from an image to a corrected data set, two people at once, and wrong input."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tifffile

from cytoray_services.datasets import hash_dataset, open_dataset
from cytoray_services.settings import Settings, load_settings
from cytoray_services.tokens.tokens import create_token, tokens_path
from serving_in_process import Ask, asker, config_of, in_process

SHAPE = (300, 520)


@pytest.fixture(scope="module")
def settings(registry_without_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load_settings({"CYTORAY_HOME": str(tmp_path_factory.mktemp("sets") / "home")})


@pytest.fixture(scope="module")
def ask(settings: Settings) -> Ask:
    create_token(tokens_path(settings), "chief", ("administer",), days=1)
    return asker(in_process(settings, config_of([], insecure_local=False, tokens=tokens_path(settings), shared={})))


@pytest.fixture(scope="module")
def token(settings: Settings, ask: Ask) -> Callable[..., dict[str, str]]:
    known: dict[str, dict[str, str]] = {}

    def make(name: str, *scopes: str, team: str | None = None) -> dict[str, str]:
        if name not in known:
            text, _ = create_token(tokens_path(settings), name, scopes or ("predict", "submit"), days=1, team=team)
            known[name] = {"Authorization": f"Bearer {text}"}
        return known[name]

    return make


@pytest.fixture
def ada(token: Callable[..., dict[str, str]]) -> dict[str, str]:
    return token("ada")


@pytest.fixture
def cells(ask: Ask, ada: dict[str, str], request: pytest.FixtureRequest) -> str:
    """Make an empty data set, with the number of the test as its name."""
    name = f"cells-{abs(hash(request.node.nodeid)) % 10**9}"
    assert ask("POST", "/datasets", json={"name": name}, headers=ada).status_code == 201
    return f"/datasets/{name}"


def tiff(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, photometric="minisblack")
    return file.getvalue()


def labels() -> np.ndarray:
    made = np.zeros(SHAPE, np.uint16)
    made[10:30, 10:30], made[200:260, 300:350], made[280:300, 500:520] = 1, 2, 3
    return made


def form(seed: int = 0, **texts: str) -> dict[str, Any]:
    pixels = np.random.default_rng(seed).integers(0, 255, SHAPE).astype(np.uint8)
    files = {"image": ("cells.tif", tiff(pixels)), "masks": ("masks.tif", tiff(labels()))}
    return {"files": files, "data": texts}


def added(ask: Ask, cells: str, headers: dict[str, str], seed: int = 0, **texts: str) -> str:
    response = ask("POST", f"{cells}/items", headers=headers, **form(seed, **texts))
    assert response.status_code == 201, response.text
    assert response.headers["ETag"] == '"0"'
    return response.headers["Location"]


def edit(ask: Ask, item: str, headers: dict[str, str], revision: int, *edits: dict[str, Any]) -> httpx.Response:
    return ask("POST", f"{item}/edits", json={"edits": edits}, headers=headers | {"If-Match": f'"{revision}"'})


def test_from_an_image_to_a_corrected_data_set(ask: Ask, ada: dict[str, str], cells: str, settings: Settings) -> None:
    objects = json.dumps([{"label": 1, "confidence": 0.25, "class": "round"}])
    item = added(ask, cells, ada, group="movie 1", objects=objects)
    other = added(ask, cells, ada, 1)
    assert ask("GET", f"{cells}/next", headers=ada).json() == {"item": item.rpartition("/")[2]}
    response = edit(
        ask,
        item,
        ada,
        0,
        {"op": "delete", "labels": [2]},
        {"op": "add", "outline": [[100, 100], [140, 100], [140, 120], [100, 120]], "class": "flat"},
        {"op": "finish", "region": {"outline": [[0, 0], [200, 0], [200, 300], [0, 300]]}},
    )
    assert response.status_code == 200, response.text
    assert response.headers["ETag"] == '"3"'
    assert response.json() == {
        "revision": 3,
        "changed": [100, 100, 350, 260],
        "frames": [0, 1],
        "planes": [0, 1],
        "objects": [2, 4],
    }
    status = ask("GET", item, headers=ada)
    assert status.headers["ETag"] == '"3"'
    assert status.json()["group"] == "movie 1"
    assert list(status.json()["finished"]) == ["1"]
    assert status.json()["levels"] == [
        {"width": 520, "height": 300},
        {"width": 260, "height": 150},
        {"width": 130, "height": 75},
    ]
    table = ask("GET", f"{item}/labels/objects", headers=ada).json()
    rows = {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["rows"]}
    assert set(rows) == {1, 3, 4}
    assert (rows[4]["made"], rows[4]["by"], rows[4]["class"], rows[4]["area"]) == ("person", "ada", "flat", 800)
    log = ask("GET", f"{item}/edits", headers=ada).json()
    assert [one["edit"]["op"] for one in log["edits"]] == ["delete", "add", "finish"]
    assert log["edits"][1]["edit"]["class"] == "flat"
    assert len(ask("GET", f"{item}/edits?after=2", headers=ada).json()["edits"]) == 1
    dataset = ask("GET", cells, headers=ada).json()
    assert (dataset["items"], dataset["finished"], dataset["splits"]) == (2, 1, {"train": 1, "val": 1})
    folder = settings.home / "datasets" / cells.rpartition("/")[2]
    assert dataset["version"] == hash_dataset(open_dataset(folder, drawing_test=False))
    assert dataset in ask("GET", "/datasets", headers=ada).json()["datasets"]
    assert [one["id"] for one in ask("GET", f"{cells}/items", headers=ada).json()["items"]] == [
        one.rpartition("/")[2] for one in (item, other)
    ]


def test_labels_come_as_tiles(ask: Ask, ada: dict[str, str], cells: str) -> None:
    item, whole = added(ask, cells, ada), labels()
    for level, step in enumerate((1, 2, 4)):
        seen = whole[::step, ::step]
        for row in range(-(-seen.shape[0] // 256)):
            for column in range(-(-seen.shape[1] // 256)):
                response = ask(
                    "GET", f"{item}/labels/{level}/{column}/{row}", headers=ada | {"Accept-Encoding": "identity"}
                )
                expected = seen[row * 256 : (row + 1) * 256, column * 256 : (column + 1) * 256]
                assert response.headers["Content-Type"] == "application/octet-stream"
                np.testing.assert_array_equal(np.frombuffer(response.content, "<u4").reshape(expected.shape), expected)
    plain = ask("GET", f"{item}/labels/0/0/0", headers=ada | {"Accept-Encoding": "gzip"})
    assert plain.headers["Content-Encoding"] == "gzip"
    assert int(plain.headers["Content-Length"]) < 2000
    assert len(plain.content) == 256 * 256 * 4
    tag = plain.headers["ETag"]
    assert ask("GET", f"{item}/labels/0/0/0", headers=ada | {"If-None-Match": tag}).status_code == 304
    edit(ask, item, ada, 0, {"op": "delete", "labels": [1]})
    assert ask("GET", f"{item}/labels/0/0/0", headers=ada | {"If-None-Match": tag}).status_code == 200
    for wrong in ("0/3/0", "0/0/2", "3/0/0", "0/0/0?t=1", "0/0/0?z=1"):
        assert ask("GET", f"{item}/labels/{wrong}", headers=ada).status_code == 400


def test_the_second_of_two_people_gets_both_sides(
    ask: Ask, token: Callable[..., dict[str, str]], settings: Settings
) -> None:
    ada, ben = token("lab-ada", "submit:lab", "predict"), token("lab-ben", "submit:lab", "predict")
    assert ask("POST", "/datasets", json={"name": "shared"}, headers=ada).json()["team"] == "lab"
    item = added(ask, "/datasets/shared", ada)
    assert edit(ask, item, ada, 0, {"op": "delete", "labels": [1]}).status_code == 200
    refused = edit(ask, item, ben, 0, {"op": "delete", "labels": [2]})
    assert refused.status_code == 409
    body = refused.json()
    assert (body["error"], body["field"], body["revision"]) == ("StaleRevisionError", "If-Match", 1)
    assert refused.headers["ETag"] == '"1"'
    assert [(one["who"], one["objects"], one["edit"]) for one in body["theirs"]] == [
        ("lab-ada", [1], {"op": "delete", "labels": [1]})
    ]
    assert edit(ask, item, ben, 1, {"op": "delete", "labels": [2]}).json()["revision"] == 2


def test_data_sets_of_others_are_as_if_there_were_none(
    ask: Ask, token: Callable[..., dict[str, str]], ada: dict[str, str], cells: str
) -> None:
    ben, item = token("ben"), added(ask, cells, ada)
    none = "/datasets/there-is-none"
    for method, place in [
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/items"),
        ("POST", "/items"),
        ("GET", "/next"),
        ("GET", f"/items/{item.rpartition('/')[2]}"),
        ("GET", f"/items/{item.rpartition('/')[2]}/edits"),
        ("GET", f"/items/{item.rpartition('/')[2]}/labels/objects"),
        ("GET", f"/items/{item.rpartition('/')[2]}/labels/0/0/0"),
    ]:
        theirs, missing = (ask(method, one + place, headers=ben) for one in (cells, none))
        assert theirs.status_code == missing.status_code == 404
        name = cells.rpartition("/")[2]
        assert theirs.text.replace(name, "there-is-none") == missing.text
    assert edit(ask, item, ben, 0, {"op": "delete", "labels": [1]}).status_code == 404
    assert cells.rpartition("/")[2] not in ask("GET", "/datasets", headers=ben).text


def test_reading_needs_one_scope_and_changing_another(
    ask: Ask, token: Callable[..., dict[str, str]], ada: dict[str, str], cells: str
) -> None:
    reader = token("reader", "predict")
    assert ask("GET", "/datasets", headers=reader).status_code == 200
    assert ask("POST", "/datasets", json={"name": "x"}, headers=reader).status_code == 403
    assert ask("GET", "/datasets").status_code == 401
    assert ask("GET", "/datasets", headers=token("writer", "submit")).status_code == 403


def test_a_data_set_is_removed_by_its_name(ask: Ask, ada: dict[str, str], cells: str) -> None:
    added(ask, cells, ada)
    assert ask("DELETE", cells, headers=ada).status_code == 400
    assert ask("DELETE", f"{cells}?confirm={cells.rpartition('/')[2]}", headers=ada).status_code == 204
    assert ask("GET", cells, headers=ada).status_code == 404


LONG = [[0.0, 0.0]] * 5000
WRONG_EDITS: list[Any] = [
    [],
    [{"op": "delete", "labels": [99]}],
    [{"op": "delete", "labels": []}],
    [{"op": "delete", "labels": [-1]}],
    [{"op": "delete", "labels": [2**70]}],
    [{"op": "delete", "labels": "1"}],
    [{"op": "explode"}],
    [{"op": "add", "outline": LONG}],
    [{"op": "add", "outline": [[0, 0], [1, 1]]}],
    [{"op": "add", "outline": [[0, 0], [1e300, 0], [0, 1]]}],
    [{"op": "add", "outline": [[0, 0], ["x", 0], [0, 1]]}],
    [{"op": "add", "outline": [[100, 100], [110, 100], [110, 110]], "t": 5}],
    [{"op": "add", "outline": [[100, 100], [110, 100], [110, 110]], "more": 1}],
    [{"op": "add", "outline": [[100, 100], [110, 100], [110, 110]], "class": "\n"}],
    [{"op": "paint", "label": 1, "stroke": [[5, 5]], "radius": 1e9}],
    [{"op": "paint", "label": 1, "stroke": [[5, 5]], "radius": 0}],
    [{"op": "paint", "label": 1, "stroke": [[0, 0], [500, 300]] * 2000, "radius": 500}],
    [{"op": "copy_plane", "label": 1, "from": 0, "to": 1}],
    [{"op": "interpolate", "label": 1, "from": 0, "to": 2**40}],
    [{"op": "finish", "region": {"outline": [[1000, 1000], [1001, 1000], [1001, 1001]]}}],
    [{"op": "undo", "edit": 12}],
    [{"op": "delete", "labels": [1]}] * 101,
]


@pytest.mark.parametrize("wrong", WRONG_EDITS, ids=range(len(WRONG_EDITS)))
def test_edits_that_cannot_be_made_are_refused_in_words(
    ask: Ask, ada: dict[str, str], cells: str, wrong: list[dict[str, Any]]
) -> None:
    item = added(ask, cells, ada)
    response = edit(ask, item, ada, 0, *wrong)
    assert response.status_code in (400, 422), response.text
    assert response.json()["message"]
    assert ask("GET", item, headers=ada).headers["ETag"] == '"0"'


@pytest.mark.parametrize("header", [None, "*", "seven", '"-1"', '"99"', 'W/"0"'])
def test_edits_need_the_revision_that_they_are_made_on(
    ask: Ask, ada: dict[str, str], cells: str, header: str | None
) -> None:
    item = added(ask, cells, ada)
    sent = ada | ({} if header is None else {"If-Match": header})
    response = ask("POST", f"{item}/edits", json={"edits": [{"op": "undo"}]}, headers=sent)
    assert response.status_code == 400
    assert response.json()["field"] == "If-Match"


WRONG_ITEMS: dict[str, tuple[dict[str, Any], int]] = {
    "no form": ({"content": b"image", "headers": {"Content-Type": "text/plain"}}, 400),
    "no image": ({"files": {"masks": ("m.tif", b"x")}}, 400),
    "an image as text": ({"data": {"image": "x"}, "files": {"masks": ("m.tif", b"x")}}, 400),
    "a page as image": ({"files": {"image": ("x.png", b"<html><script>alert(1)</script>")}}, 422),
    "an SVG": ({"files": {"image": ("x.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>')}}, 422),
    "a PDF": ({"files": {"image": ("x.pdf", b"%PDF-1.7")}}, 422),
    "masks of another size": ({"files": {**form()["files"], "masks": ("m.tif", tiff(np.ones((4, 4), np.uint8)))}}, 422),
    "another field": ({**form(), "data": {"split": "val"}}, 400),
    "objects that are no list": (form(objects="{"), 400),
    "objects of other labels": (form(objects='[{"label": 9}]'), 400),
    "a certainty above one": (form(objects='[{"label": 1, "confidence": 2}]'), 400),
    "a long group": (form(group="x" * 500), 400),
    "two images": ({"files": [("image", ("a.tif", b"x")), ("image", ("b.tif", b"x"))]}, 400),
    "three files": ({"files": [("image", ("a.tif", b"x")), ("masks", ("b.tif", b"x")), ("x", ("c.tif", b"x"))]}, 400),
    "no boundary": ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400),
    "a large body": ({"content": b"x" * 2**21, "headers": {"Content-Type": "application/json"}}, 413),
}


@pytest.mark.parametrize("case", WRONG_ITEMS)
def test_an_item_that_cannot_be_used_is_refused_in_words(ask: Ask, ada: dict[str, str], cells: str, case: str) -> None:
    given, status = WRONG_ITEMS[case]
    headers = ada | given.get("headers", {})
    response = ask("POST", f"{cells}/items", **(given | {"headers": headers}))
    assert response.status_code == status, response.text
    assert response.json()["message"]
    assert ask("GET", cells, headers=ada).json()["items"] == 0


def test_a_name_with_markup_is_only_a_name(ask: Ask, ada: dict[str, str], cells: str) -> None:
    files = form()["files"] | {"image": ("../<img src=x onerror=alert(1)>.tif", form()["files"]["image"][1])}
    made = ask("POST", f"{cells}/items", headers=ada, files=files).json()
    assert made["name"] == "<img src=x onerror=alert(1)>.tif"
    again = ask("POST", f"{cells}/items", headers=ada, files=files)
    assert again.status_code == 409
    assert made["id"] in again.json()["message"]


def test_an_image_may_be_larger_than_other_bodies(ask: Ask, ada: dict[str, str], cells: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (1200, 1200)).astype(np.uint8)
    made = ask("POST", f"{cells}/items", headers=ada, files={"image": ("large.tif", tiff(pixels))})
    assert made.status_code == 201
    assert made.json()["objects"] == 0
    edits = {"edits": [{"op": "delete", "labels": list(range(1, 65_000))}] * 4}
    headers = ada | {"If-Match": '"0"'}
    assert ask("POST", made.headers["Location"] + "/edits", headers=headers, json=edits).status_code == 413
