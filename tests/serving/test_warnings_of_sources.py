"""What is said about files that become others on their way to a model: stores by URI, folders of frames, masks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from conformance.stores import store
from cytoray_analysis.images import image_from_array, write_image
from cytoray_services.settings import load_settings
from cytoray_serving.client import Client
from cytoray_serving.headers import parse_warnings
from serving_in_process import config_of, in_process
from serving_samples import noise, tiff_bytes

PIXELS = noise(3, 40, 48)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def http(folders: Any, root: Path) -> TestClient:
    settings = load_settings({"CYTORAY_HOME": str(root / "home")})
    config = config_of([str(folders.nuclei), str(folders.cells)], shared=None, allowed={"roots": [str(root)]})
    return TestClient(in_process(settings, config).api)


@pytest.fixture
def client(http: TestClient) -> Client:
    found = Client("http://testserver")
    found.service._http = http  # type: ignore[assignment] # a client of httpx's fork, which asks the application itself
    return found


def stopped(path: Path) -> Path:
    """Write a movie of which the last frame was not acquired any more."""
    write_image(path, image_from_array(PIXELS, "TYX"))
    gone = path / "0" / "c" / "2"
    assert gone.is_dir()
    shutil.rmtree(gone)
    return path


@pytest.mark.slow
def test_a_store_by_uri_keeps_its_warnings(http: TestClient, client: Client, root: Path) -> None:
    path = stopped(root / "movie.ome.zarr")
    question: dict[str, Any] = {"image": path.as_uri(), "frame": "1"}
    answer = http.post("/models/nuclei/predict", json=question, headers={"Accept": "application/json"})
    assert answer.status_code == 200, answer.text
    assert "frames-missing" in [one.code for one in parse_warnings(answer.headers["X-Cytoray-Warnings"])]
    assert "frames-missing" in json.dumps(answer.json()["warnings"])
    assert "frames-missing" in [one.code for one in client.predict(path.as_uri(), model="nuclei", frame=1).warnings]


def test_masks_by_uri_need_not_store_where_nothing_is(client: Client, root: Path) -> None:
    masks = np.zeros((40, 48), np.uint16)
    masks[20:32, 4:16] = 1  # up to the border of a chunk that is not stored
    (path := root / "masks").mkdir()
    store(masks, "YX", 5)(path)
    assert len(list((path / "image.ome.zarr" / "0" / "c").rglob("*/*"))) == 1
    write_image(root / "image.ome.zarr", image_from_array(PIXELS[0], "YX"))
    uri, masks_uri = ((folder / "image.ome.zarr").as_uri() for folder in (root, path))
    assert client.predict(uri, model="cells", masks=masks_uri).objects == 1


def test_frames_in_files_of_their_own_keep_their_warnings(client: Client, tmp_path: Path) -> None:
    for index in range(2):
        frame = tiff_bytes(PIXELS[index], description="<OME of nothing", metadata=None)
        (tmp_path / f"t00{index}.tif").write_bytes(frame)
    answer = client.predict(tmp_path, model="nuclei", frame=1)
    assert "metadata-unreadable" in [one.code for one in answer.warnings]


def test_masks_keep_their_warnings(client: Client) -> None:
    masks = np.zeros(PIXELS[0].shape, np.uint8)
    masks[4:14, 4:14] = 1
    odd = tiff_bytes(masks, description="<OME of nothing", metadata=None)
    answer = client.predict(tiff_bytes(PIXELS[0]), model="cells", masks=odd)
    assert "the masks" in "".join(one.sentence for one in answer.warnings if one.code == "metadata-unreadable")


def test_a_small_store_of_many_channels_is_refused_before_it_is_read(http: TestClient, root: Path) -> None:
    path = root / "many.ome.zarr"
    write_image(path, image_from_array(noise(2, 64, 64), "CYX"))
    (level,) = [one.parent for one in path.glob("*/zarr.json")]
    described = json.loads((level / "zarr.json").read_text())
    described["shape"] = [8000, 512, 512]
    (level / "zarr.json").write_text(json.dumps(described))
    answer = http.post("/models/nuclei/predict", json={"image": path.as_uri()})
    assert answer.status_code == 413
    assert "bytes of pixels in a request, got 2097152000 in" in answer.json()["message"]
