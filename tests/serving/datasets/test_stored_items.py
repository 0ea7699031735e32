"""From a stored image and its answer to an item that a person corrects, and back to tiles."""

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest

from cytoray_services.datasets import open_dataset
from cytoray_services.datasets.labelled import read_labelled
from cytoray_services.settings import Settings, load_settings
from cytoray_services.storage.allowed import Allowed
from cytoray_serving.viewer.limits import ViewerConfig
from serving_in_process import Ask, asker, config_of, in_process
from serving_samples import noise, tiff_bytes

PIXELS = noise(300, 400)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load_settings({"CYTORAY_HOME": str(tmp_path_factory.mktemp("home"))})


@pytest.fixture(scope="module")
def ask(folders: Any, places: Path, settings: Settings) -> Ask:
    models = [str(folders.nuclei), str(folders.stain)]
    return asker(in_process(settings, config_of(models, allowed=Allowed(roots=(places,)))))


@pytest.fixture(scope="module")
def image(ask: Ask) -> str:
    return str(ask("POST", "/images?name=cells.tif", content=tiff_bytes(PIXELS)).json()["id"])


@pytest.fixture
def cells(ask: Ask, request: pytest.FixtureRequest) -> str:
    name = f"cells-{abs(hash(request.node.nodeid)) % 10**9}"
    assert ask("POST", "/datasets", json={"name": name}).status_code == 201
    return f"/datasets/{name}"


def answer(ask: Ask, image: str, model: str = "nuclei") -> dict[str, Any]:
    found = ask("POST", f"/images/{image}/answers", json={"model": model})
    assert found.status_code == 201, found.text
    return dict(found.json())


def test_an_answer_becomes_the_labels_that_a_person_corrects(
    ask: Ask, image: str, cells: str, settings: Settings
) -> None:
    found = answer(ask, image)
    sent = ask("POST", f"{cells}/items", json={"image": image, "answer": found["id"], "group": "movie 1"})
    assert sent.status_code == 201, sent.text
    item = sent.json()
    assert (item["name"], item["group"], item["objects"]) == ("cells.tif", "movie 1", found["objects"])
    assert item["model"]["name"] == "nuclei"
    assert item["certainty"] is not None
    place = sent.headers["location"]
    tile = ask("GET", f"{place}/labels/0/1/0").content
    assert tile == ask("GET", f"/images/{image}/answers/{found['id']}/tiles/0/1/0").content
    rows = ask("GET", f"{place}/labels/objects").json()
    label = rows["columns"].index("label")
    first = rows["rows"][0][label]
    edits = {"edits": [{"op": "delete", "labels": [first]}, {"op": "finish", "region": {}}]}
    assert ask("POST", f"{place}/edits", json=edits, headers={"If-Match": '"0"'}).status_code == 200
    data = open_dataset(settings.home / "datasets" / cells.rpartition("/")[2])
    truth = read_labelled(data, data.images[0], {}).truth
    assert len(np.unique(truth)) - 1 == found["objects"] - 1


def test_the_image_of_an_item_is_shown_by_tiles_of_a_stored_image(ask: Ask, image: str, cells: str) -> None:
    item = ask("POST", f"{cells}/items", json={"image": image}).json()
    assert item["objects"] == 0
    shown = ask("POST", f"{cells}/items/{item['id']}/image").json()
    tile = ask("GET", f"/images/{shown['id']}/tiles/0/1/1?low=0&high=255").content
    assert np.array_equal(imagecodecs.png_decode(tile), PIXELS[256:, 256:])
    assert ask("POST", f"{cells}/items/{item['id']}/image").json()["id"] == shown["id"], "it is stored once"
    assert ask("POST", f"{cells}/items/item-0000000000000000/image").status_code == 404


def test_what_cannot_be_an_item_is_refused(ask: Ask, image: str, cells: str, places: Path) -> None:
    stain = answer(ask, image, "stain")
    other = ask("POST", "/images?name=b.tif", content=tiff_bytes(noise(64, 64, seed=3))).json()["id"]
    of_image = answer(ask, image)
    for body, status, word in (
        ({"image": "img-" + "0" * 24}, 404, "there is no image"),
        ({"image": image, "answer": "ans-" + "0" * 16}, 404, "there is no answer"),
        ({"image": other, "answer": of_image["id"]}, 404, "there is no answer"),
        ({"image": image, "answer": stain["id"]}, 400, "of the kind image"),
        ({"picture": image}, 400, "stored image"),
    ):
        refused = ask("POST", f"{cells}/items", json=body)
        assert refused.status_code == status, refused.text
        assert word in refused.json()["message"], refused.text
    (places / "s.tif").write_bytes(tiff_bytes(PIXELS))
    named = ask("POST", "/images", json={"uri": (places / "s.tif").as_uri()}).json()["id"]
    assert ask("POST", f"{cells}/items", json={"image": named}).status_code == 201
    assert ask("POST", f"{cells}/items", json={"image": image}).status_code == 409, "the same file again"


@pytest.mark.parametrize("name", ["all", "items", "lock"])
def test_no_name_of_a_data_set_is_one_of_a_lock(ask: Ask, name: str) -> None:
    assert ask("POST", "/datasets", json={"name": name}).status_code == 201
    picture = tiff_bytes(noise(40, 40, seed=len(name)))
    assert ask("POST", f"/datasets/{name}/items", files={"image": ("a.tif", picture)}).status_code == 201
    assert ask("DELETE", f"/datasets/{name}?confirm={name}").status_code == 204


def test_a_line_that_would_cut_into_dust_is_refused(ask: Ask, cells: str) -> None:
    masks = np.ones((200, 200), np.uint8)
    files = {"image": ("a.tif", tiff_bytes(noise(200, 200, seed=9))), "masks": ("m.tif", tiff_bytes(masks))}
    item = ask("POST", f"{cells}/items", files=files).headers["location"]
    generator = np.random.default_rng(0)
    line = generator.uniform(-20, 220, (300, 2)).round(1).tolist()
    split = {"edits": [{"op": "split", "label": 1, "line": line}]}
    refused = ask("POST", f"{item}/edits", json=split, headers={"If-Match": '"0"'})
    assert refused.status_code == 400, refused.text
    assert "parts" in refused.json()["message"]


def test_an_owner_without_room_is_refused(folders: Any, tmp_path: Path) -> None:
    settings = load_settings({"CYTORAY_HOME": str(tmp_path)})
    ask = asker(in_process(settings, config_of([str(folders.nuclei)], viewer=ViewerConfig(owner_megabytes=1))))
    assert ask("POST", "/datasets", json={"name": "cells"}).status_code == 201
    for seed, status in ((1, 201), (2, 429)):
        picture = tiff_bytes(np.random.default_rng(seed).integers(0, 255, (400, 400)).astype(np.uint8))
        sent = ask("POST", "/datasets/cells/items", files={"image": ("a.tif", picture)})
        assert sent.status_code == status, sent.text
    assert "disk space" in sent.json()["message"]
