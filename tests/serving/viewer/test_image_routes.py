"""Stored images over a real model, in this process, without Ray."""

import io
import shutil
from pathlib import Path
from typing import Any

import httpx
import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from cytoray_services.settings import Settings, load_settings
from cytoray_services.storage.allowed import Allowed
from cytoray_services.tokens.tokens import create_token, tokens_path
from cytoray_serving.viewer.limits import ViewerConfig
from cytoray_serving.viewer.records import AnswerList, ImageList, ObjectsTable, StoredAnswer, StoredImage
from cytoray_serving.viewer.store import ImageStore
from serving_in_process import Ask, asker, config_of, in_process
from serving_samples import GOOD, noise, tiff_bytes


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def ask(folders: Any, home: Path, places: Path) -> Ask:
    settings = load_settings({"CYTORAY_HOME": str(home)})
    models = [str(folder) for folder in vars(folders).values()]
    return asker(in_process(settings, config_of(models, allowed=Allowed(roots=(places,)))))


def sent(ask: Ask, body: bytes = GOOD, **options: Any) -> StoredImage:
    answer = ask("POST", "/images?name=cells.tif", content=body, **options)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/images/{answer.json()['id']}"
    return StoredImage.model_validate(answer.json())


def answered(ask: Ask, image: StoredImage, **asked: Any) -> StoredAnswer:
    answer = ask("POST", f"/images/{image.id}/answers", json={"model": "nuclei", **asked})
    assert answer.status_code == 201, answer.text
    return StoredAnswer.model_validate(answer.json())


def refused(answer: httpx.Response, status: int, word: str) -> None:
    assert answer.status_code == status, answer.text
    assert word in answer.json()["message"], answer.text


def test_an_image_is_kept_listed_and_removed(ask: Ask) -> None:
    image = sent(ask)
    assert (image.name, image.owner, image.axes["X"]) == ("cells.tif", "local", 96)
    assert image.expires > image.created
    assert image.id in {one.id for one in ImageList.model_validate(ask("GET", "/images").json()).images}
    assert ask("GET", f"/images/{image.id}").json()["id"] == image.id
    assert ask("DELETE", f"/images/{image.id}").status_code == 204
    refused(ask("GET", f"/images/{image.id}"), 404, "there is no image")
    refused(ask("DELETE", f"/images/{image.id}"), 404, "there is no image")


def test_a_tile_shows_the_pixels_that_were_sent(ask: Ask) -> None:
    pixels = noise(300, 400)
    image = sent(ask, tiff_bytes(pixels))
    tile = ask("GET", f"/images/{image.id}/tiles/0/1/1?low=0&high=255")
    assert tile.headers["content-type"] == "image/png"
    assert "private" in tile.headers["cache-control"]
    assert np.array_equal(imagecodecs.png_decode(tile.content), pixels[256:, 256:])
    assert ask("HEAD", f"/images/{image.id}/tiles/1/0/0").status_code == 200


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("0/9/0", "column"),
        ("7/0/0", "level"),
        ("0/0/0?t=3", ""),
        ("0/0/0?c=5", "expected c"),
        ("0/0/0?low=9&high=3", "low below high"),
        ("0/0/0?low=nan", "low below high"),
        ("0/0/x", ""),
    ],
)
def test_a_tile_that_does_not_exist_is_refused(ask: Ask, query: str, word: str) -> None:
    image = sent(ask)
    answer = ask("GET", f"/images/{image.id}/tiles/{query}")
    if "t=3" in query:  # an image without frames ignores the frame of a slider that others have
        assert answer.status_code == 200
        return
    assert 400 <= answer.status_code < 500
    assert word in answer.json()["message"]


def test_an_answer_over_an_image_is_the_answer_of_the_model(ask: Ask) -> None:
    image = sent(ask)
    found = answered(ask, image)
    whole = ask("POST", "/models/nuclei/predict", content=GOOD, headers={"Accept": "image/tiff"})
    labels = tifffile.imread(io.BytesIO(whole.content))
    assert labels.max() > 0
    assert found.objects == len(np.unique(labels)) - 1
    assert found.kind == "labels"
    place = f"/images/{image.id}/answers/{found.id}"
    tile = ask("GET", f"{place}/tiles/0/0/0")
    assert np.array_equal(np.frombuffer(tile.content, "<u4").reshape(labels.shape), labels)
    table = ObjectsTable.model_validate(ask("GET", f"{place}/objects").json())
    assert table.columns == found.columns
    assert table.columns[:4] == ["label", "y", "x", "area"]
    areas = {row[0]: row[3] for row in table.rows}
    assert areas == {n: int((labels == n).sum()) for n in range(1, labels.max() + 1)}
    rows = {row[0]: row for row in table.rows}
    assert rows[1][1:3] == pytest.approx([axis.mean() for axis in np.nonzero(labels == 1)], rel=1e-5)


@pytest.mark.parametrize("form", ["tif", "json", "geojson", "overlay", "png", "csv", "arrow", "arrays"])
def test_an_answer_is_downloaded_in_every_form(ask: Ask, form: str) -> None:
    image = sent(ask)
    found = answered(ask, image)
    got = ask("GET", f"/images/{image.id}/answers/{found.id}/file?format={form}")
    assert got.status_code == 200, got.text
    assert got.content
    if form == "tif":
        whole = ask("POST", "/models/nuclei/predict", content=GOOD, headers={"Accept": "image/tiff"})
        assert np.array_equal(tifffile.imread(io.BytesIO(got.content)), tifffile.imread(io.BytesIO(whole.content)))


def test_labels_are_compressed_for_those_who_take_it(ask: Ask) -> None:
    image = sent(ask)
    place = f"/images/{image.id}/answers/{answered(ask, image).id}/tiles/0/0/0"
    packed, plain = (ask("GET", place, headers={"Accept-Encoding": coding}) for coding in ("gzip", "identity"))
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.content == plain.content


def test_a_form_of_another_kind_is_refused(ask: Ask) -> None:
    image = sent(ask)
    found = answered(ask, image)
    refused(ask("GET", f"/images/{image.id}/answers/{found.id}/file?format=geff"), 406, "expected one of tif")


def test_an_answer_asked_for_by_an_alias_is_downloaded(settings: Settings) -> None:
    ask = asker(in_process(settings, config_of(["nuclei@champion"])))
    image = sent(ask)
    found = answered(ask, image, model="nuclei@champion")
    assert ask("GET", f"/images/{image.id}/answers/{found.id}/file?format=tif").status_code == 200
    by_version = answered(ask, image, model="nuclei", version=2)
    assert by_version.model.version == "2"
    assert ask("GET", f"/images/{image.id}/answers/{by_version.id}/file?format=csv").status_code == 200


def test_what_is_left_of_a_removed_image_is_removed(ask: Ask, home: Path) -> None:
    store = ImageStore(home / "images", ViewerConfig())
    left = home / "images" / f"img-{'0' * 24}" / "answers" / "ans-0"
    left.mkdir(parents=True)
    image = sent(ask)
    assert store.remove_expired() == 0
    assert not left.exists()
    assert ask("GET", f"/images/{image.id}").status_code == 200
    assert ImageStore(home / "images", ViewerConfig(keep_hours=1e-9)).remove_expired() > 0
    assert ask("GET", f"/images/{image.id}").status_code == 404


def test_answers_are_listed_and_removed(ask: Ask) -> None:
    image = sent(ask)
    first, second = answered(ask, image), answered(ask, image, pixel_size="0.5")
    listed = AnswerList.model_validate(ask("GET", f"/images/{image.id}/answers").json()).answers
    assert [one.id for one in listed] == [second.id, first.id]
    assert second.question["pixel_size"] == "0.5"
    place = f"/images/{image.id}/answers/{first.id}"
    assert ask("GET", place).json()["id"] == first.id
    assert ask("DELETE", place).status_code == 204
    refused(ask("GET", place), 404, "there is no answer")


def test_every_plane_of_a_volume_has_tiles(ask: Ask) -> None:
    image = sent(ask, tiff_bytes(noise(3, 64, 64), metadata={"axes": "ZYX"}))
    refused(ask("POST", f"/images/{image.id}/answers", json={"model": "nuclei"}), 422, "axes")
    found = answered(ask, image, plane="each")
    assert found.axes["Z"] == 3
    tiles = [ask("GET", f"/images/{image.id}/answers/{found.id}/tiles/0/0/0?z={z}").content for z in range(3)]
    assert len(set(tiles)) == 3
    one = answered(ask, image, plane="1")
    shown = ask("GET", f"/images/{image.id}/answers/{one.id}/tiles/0/0/0?z=2")
    assert shown.status_code == 200, "the answer about one plane is shown at every plane"


def test_a_predicted_stain_has_tiles_of_its_own(ask: Ask) -> None:
    image = sent(ask)
    found = answered(ask, image, model="stain")
    assert found.kind == "image"
    assert found.channels
    tile = ask("GET", f"/images/{image.id}/answers/{found.id}/tiles/0/0/0?c=0")
    assert imagecodecs.png_decode(tile.content).shape == (64, 96)


def test_classes_are_a_table_of_boxes(ask: Ask) -> None:
    image = sent(ask)
    found = ask("POST", f"/images/{image.id}/answers", json={"model": "cells", "segmentation": "nuclei"})
    assert found.status_code == 201, found.text
    record = StoredAnswer.model_validate(found.json())
    assert record.kind == "class"
    assert record.levels == []
    table = ObjectsTable.model_validate(ask("GET", f"/images/{image.id}/answers/{record.id}/objects").json())
    assert {"label", "class", "probability", "xmin", "ymax"} <= set(table.columns)
    assert len(table.rows) == record.objects
    refused(ask("GET", f"/images/{image.id}/answers/{record.id}/tiles/0/0/0"), 404, "no tiles")


def test_tracks_are_labels_in_every_frame(ask: Ask) -> None:
    image = sent(ask, tiff_bytes(np.stack([noise(64, 64)] * 3), metadata={"axes": "TYX"}))
    found = answered(ask, image, model="linker", segmentation="nuclei")
    assert found.kind == "lineage"
    assert found.axes["T"] == 3
    table = ObjectsTable.model_validate(ask("GET", f"/images/{image.id}/answers/{found.id}/objects").json())
    tile = ask("GET", f"/images/{image.id}/answers/{found.id}/tiles/0/0/0?t=1")
    shown = set(np.unique(np.frombuffer(tile.content, "<u4"))) - {0}
    assert shown
    assert {row[0] for row in table.rows if row[1] == 1} == shown
    assert table.columns == ["label", "t", "y", "x", "area", "parent", "confidence"]


def test_an_image_is_named_by_its_uri(ask: Ask, places: Path) -> None:
    (places / "there.tif").write_bytes(GOOD)
    answer = ask("POST", "/images", json={"uri": (places / "there.tif").as_uri()})
    assert answer.status_code == 201, answer.text
    image = StoredImage.model_validate(answer.json())
    assert image.name == "there.tif"
    assert image.uri == (places / "there.tif").as_uri()
    assert answered(ask, image).objects > 0
    refused(ask("POST", "/images", json={"uri": "file:///etc/passwd"}), 403, "")
    refused(ask("POST", "/images", json={"url": "file:///etc/passwd"}), 400, "URI")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"%PDF-1.4 not an image", 422),
        (GOOD[:200], 422),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 422),
    ],
)
def test_what_is_no_image_is_refused_in_words(ask: Ask, body: bytes, status: int) -> None:
    answer = ask("POST", "/images?name=x.tif", content=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["message"]


def test_names_with_markup_come_back_as_they_are(ask: Ask) -> None:
    name = "<img src=x onerror=alert(1)>.tif"
    answer = ask("POST", "/images", params={"name": name}, content=GOOD)
    assert answer.json()["name"] == name
    assert answer.headers["content-type"] == "application/json"
    assert ask("POST", "/images", params={"name": "x" * 300}, content=GOOD).status_code == 422


@pytest.mark.parametrize("image_id", ["img-0", "..%2Fjobs", "img-" + "0" * 24, "%2e%2e", "lock"])
def test_guessed_ids_find_nothing(ask: Ask, image_id: str) -> None:
    assert ask("GET", f"/images/{image_id}").status_code == 404
    assert ask("GET", f"/images/{image_id}/tiles/0/0/0").status_code == 404


def test_images_of_others_do_not_exist(folders: Any, tmp_path: Path) -> None:
    settings = load_settings({"CYTORAY_HOME": str(tmp_path)})
    tokens = {name: create_token(tokens_path(settings), name, ("predict",), days=1)[0] for name in ("ada", "bob")}
    ask = asker(in_process(settings, config_of([str(folders.nuclei)], insecure_local=False)))
    ada, bob = ({"Authorization": f"Bearer {text}"} for text in tokens.values())
    image = sent(ask, headers=ada)
    found = ask("POST", f"/images/{image.id}/answers", json={"model": "nuclei"}, headers=ada).json()
    for path in (
        f"/images/{image.id}",
        f"/images/{image.id}/tiles/0/0/0",
        f"/images/{image.id}/answers",
        f"/images/{image.id}/answers/{found['id']}",
        f"/images/{image.id}/answers/{found['id']}/tiles/0/0/0",
        f"/images/{image.id}/answers/{found['id']}/objects",
        f"/images/{image.id}/answers/{found['id']}/file?format=tif",
    ):
        assert ask("GET", path, headers=ada).status_code == 200, path
        assert ask("GET", path, headers=bob).status_code == 404, path
        assert ask("GET", path).status_code == 401, path
    assert ask("GET", "/images", headers=bob).json() == {"images": []}
    assert ask("DELETE", f"/images/{image.id}", headers=bob).status_code == 404
    assert ask("POST", f"/images/{image.id}/answers", json={"model": "nuclei"}, headers=bob).status_code == 404


def test_a_caller_without_room_is_refused(folders: Any, tmp_path: Path) -> None:
    settings = load_settings({"CYTORAY_HOME": str(tmp_path)})
    viewer = ViewerConfig(caller_megabytes=1)
    ask = asker(in_process(settings, config_of([str(folders.nuclei)], viewer=viewer)))
    body = tiff_bytes(noise(512, 512))
    first = sent(ask, body)
    refused(ask("POST", "/images", content=body), 429, "your images")
    assert ask("DELETE", f"/images/{first.id}").status_code == 204
    sent(ask, body)
    assert [path.name for path in (tmp_path / "images").glob(".img-*")] == []


def test_an_image_that_is_too_large_is_refused_by_its_header(folders: Any, tmp_path: Path) -> None:
    settings = load_settings({"CYTORAY_HOME": str(tmp_path)})
    ask = asker(in_process(settings, config_of([str(folders.nuclei)], viewer=ViewerConfig(image_megabytes=1))))
    refused(ask("POST", "/images", content=imagecodecs.png_encode(np.zeros((2000, 2000), np.uint8))), 413, "bytes")
    refused(ask("POST", "/images", content=imagecodecs.png_encode(np.zeros((1000, 1000), np.uint8))), 413, "levels")


def write_levels(path: Path, pixels: NDArray[Any], factors: tuple[int, ...]) -> None:
    """Write an OME-Zarr with a level for each factor, each a strided copy of the first."""
    import zarr

    group = zarr.open_group(path, mode="w", zarr_format=2)
    for number, factor in enumerate(factors):
        level = pixels[..., ::factor, ::factor]
        group.create_array(str(number), data=level, chunks=(*(1,) * (pixels.ndim - 2), 128, 128))
    axes: list[Any] = [{"name": axis, "type": "space"} for axis in "zyx"[-pixels.ndim :]]
    scales: list[Any] = [[1.0] * (pixels.ndim - 2) + [float(factor)] * 2 for factor in factors]
    datasets: list[Any] = [
        {"path": str(number), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for number, scale in enumerate(scales)
    ]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]


def test_a_zarr_is_read_where_it_is_with_the_levels_it_has(ask: Ask, places: Path, home: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1200, 1500), dtype=np.uint8)
    write_levels(places / "large.ome.zarr", pixels, (1, 2, 4))
    answer = ask("POST", "/images", json={"uri": (places / "large.ome.zarr").as_uri()})
    assert answer.status_code == 201, answer.text
    image = StoredImage.model_validate(answer.json())
    assert [level.width for level in image.levels] == [1500, 750, 375, 188]
    assert not (home / "images" / image.id / "upload").exists()
    assert [path.name for path in (home / "images" / image.id / "levels").iterdir()] == ["level-3.npy"]
    for level, factor in ((0, 1), (2, 4)):
        tile = ask("GET", f"/images/{image.id}/tiles/{level}/1/0?low=0&high=255")
        shown = imagecodecs.png_decode(tile.content)
        assert np.array_equal(shown, pixels[::factor, ::factor][:256, 256:512]), level
    assert ask("GET", f"/images/{image.id}/tiles/3/0/0").status_code == 200
    assert answered(ask, image).levels == image.levels
    shutil.rmtree(places / "large.ome.zarr")
    assert ask("GET", f"/images/{image.id}/tiles/0/4/4").status_code in (404, 422)


def test_a_zarr_without_levels_gets_some(ask: Ask, places: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 300, 520), dtype=np.uint8)
    write_levels(places / "flat.ome.zarr", pixels, (1,))
    image = StoredImage.model_validate(ask("POST", "/images", json={"uri": (places / "flat.ome.zarr").as_uri()}).json())
    assert [(level.width, level.height) for level in image.levels] == [(520, 300), (260, 150), (130, 75)]
    tile = ask("GET", f"/images/{image.id}/tiles/1/0/0?z=2&low=0&high=255")
    quarters = pixels[2, :300, :520].reshape(150, 2, 260, 2).astype(float).mean(axis=(1, 3))[:, :256]
    assert np.abs(imagecodecs.png_decode(tile.content) - quarters).max() <= 1


def test_a_zarr_that_others_may_not_read_is_refused(ask: Ask, tmp_path: Path) -> None:
    write_levels(tmp_path / "secret.ome.zarr", np.zeros((10, 10), np.uint8), (1,))
    refused(ask("POST", "/images", json={"uri": (tmp_path / "secret.ome.zarr").as_uri()}), 403, "allowed folder")
