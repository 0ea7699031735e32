"""The page in a real browser, against a real service with a model that comes with Cytoray.

It needs Chromium (``make servers`` installs it on Debian) and is skipped without. The path of a folder in
``CYTORAY_PICTURES`` gets screenshots.
"""

from __future__ import annotations

import io
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tifffile
import uvicorn
from scipy.ndimage import gaussian_filter

import cytoray_services
from cytoray_services.environment import environment
from cytoray_services.free_ports import free_port
from cytoray_services.settings import load_settings
from cytoray_services.tokens.tokens import create_token, tokens_path
from cytoray_serving.front.entrance import Entrance
from serving_in_process import config_of, in_process
from serving_samples import tiff_bytes

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, an extra of developers")

CHROMIUM = shutil.which("chromium")
PICTURES = os.environ.get("CYTORAY_PICTURES")
SECONDS = 60_000  # of a busy machine
SHIPPED = Path(cytoray_services.__file__).with_name("shipped")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]

pytestmark = [
    pytest.mark.long,
    pytest.mark.ray,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: make servers"),
]


def cells(count: int = 30, side: int = 512, seed: int = 0) -> np.ndarray:
    """Return blurred disks on a dark ground, uint16."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    picture = np.zeros((side, side))
    for _ in range(count):
        row, column = generator.uniform(20, side - 20, 2)
        picture = np.maximum(picture, ((y - row) ** 2 + (x - column) ** 2 < generator.uniform(8, 14) ** 2) * 1.0)
    noisy = gaussian_filter(picture, 1.5) * 3000 + 200 + generator.normal(0, 30, picture.shape)
    made: np.ndarray = np.clip(noisy, 0, 65535).astype(np.uint16)
    return made


@pytest.fixture(scope="module")
def url(serve: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Serve the model ``nuclei`` that comes with Cytoray."""
    home = tmp_path_factory.mktemp("page")
    with environment({"CYTORAY_SHIPPED": str(SHIPPED)}):
        return str(serve(home, home / "log.txt", "nuclei").url)


@pytest.fixture(scope="module", params=[[], ["--disable-3d-apis"]], ids=["with WebGL", "without WebGL"])
def browser(request: pytest.FixtureRequest) -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *request.param])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:
    """Open the page; no request leaves its origin, and nothing is reported on the console."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    opened = context.new_page()
    opened.set_default_timeout(SECONDS)
    foreign: list[str] = []
    said: list[str] = []

    def asked(request: Any) -> None:
        if not request.url.startswith((url, "blob:", "data:")):
            foreign.append(request.url)

    opened.on("request", asked)
    opened.on("console", lambda one: said.append(one.text) if one.type == "error" else None)
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.goto(url)
    yield opened
    context.close()
    assert foreign == []
    assert [one for one in said if "the server responded with a status of" not in one] == []


def picture(page: Any, name: str) -> None:
    if PICTURES:
        page.screenshot(path=str(Path(PICTURES) / f"{name}.png"), full_page=True)


def send(page: Any, body: bytes, name: str = "cells.tif") -> None:
    page.locator("input[type=file]").set_input_files({"name": name, "mimeType": "image/tiff", "buffer": body})
    page.get_by_text(name).first.wait_for()


def ask(page: Any) -> None:
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_role("grid").wait_for()


def test_from_an_image_to_its_objects(page: Any, url: str) -> None:
    body = tiff_bytes(cells())
    send(page, body)
    picture(page, "page-image")
    ask(page)
    picture(page, "page-answer")
    image = httpx.get(f"{url}/images").json()["images"][0]
    answer = httpx.get(f"{url}/images/{image['id']}/answers").json()["answers"][0]
    assert answer["objects"] > 20
    assert f"{answer['objects']}" in page.locator("body").inner_text()


def test_a_file_that_is_no_image_is_said_in_words(page: Any) -> None:
    page.locator("input[type=file]").set_input_files(
        {"name": "paper.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.4 no image"}
    )
    page.get_by_role("button", name="Try again").first.wait_for()
    picture(page, "page-refused")


def test_the_models_are_listed(page: Any) -> None:
    page.get_by_role("link", name="Models").click()
    page.get_by_text("nuclei").first.wait_for()
    picture(page, "page-models")


def test_a_person_corrects_an_answer(page: Any, url: str, request: pytest.FixtureRequest) -> None:
    seed = 1 + len(request.node.name)
    image = httpx.post(f"{url}/images?name=plate.tif", content=tiff_bytes(cells(seed=seed))).json()
    answer = httpx.post(f"{url}/images/{image['id']}/answers", json={"model": "nuclei"}, timeout=120).json()
    name = f"cells-{seed}"
    assert httpx.post(f"{url}/datasets", json={"name": name}).status_code == 201
    item = httpx.post(f"{url}/datasets/{name}/items", json={"image": image["id"], "answer": answer["id"]}).json()
    page.goto(f"{url}/#/correct/{name}/{item['id']}")
    page.locator("#selection-title").wait_for()
    rows = httpx.get(f"{url}/datasets/{name}/items/{item['id']}/labels/objects").json()
    columns = rows["columns"]
    y, x = columns.index("y"), columns.index("x")
    first = next(row for row in rows["rows"] if 60 < row[y] < 450 and 60 < row[x] < 450)
    canvas = page.locator(".openseadragon-canvas").first
    canvas.wait_for()
    page.wait_for_timeout(3000)
    box = canvas.bounding_box()
    scale = min(box["width"], box["height"]) / 512
    at = (
        box["x"] + (box["width"] - 512 * scale) / 2 + first[x] * scale,
        box["y"] + (box["height"] - 512 * scale) / 2 + first[y] * scale,
    )
    page.mouse.click(*at)
    page.get_by_text("1 object selected").wait_for()
    picture(page, "page-correct")
    page.keyboard.press("Delete")
    page.get_by_text("deleted 1 object").wait_for()
    after = httpx.get(f"{url}/datasets/{name}/items/{item['id']}").json()
    assert (after["revision"], after["objects"]) == (1, item["objects"] - 1)
    page.keyboard.press("Control+z")
    page.get_by_text("undid edit 1").wait_for()
    page.get_by_role("button", name="All of this image is finished").click()
    page.get_by_text("marked a region as finished").wait_for()
    page.get_by_text("All changes are stored.").wait_for()
    after = httpx.get(f"{url}/datasets/{name}/items/{item['id']}").json()
    assert after["objects"] == item["objects"]
    assert len(after["finished"]) == 1
    picture(page, "page-corrected")


def test_two_people_lose_nothing(page: Any, url: str, request: pytest.FixtureRequest) -> None:
    seed = 101 + len(request.node.name)
    name = f"both-{seed}"
    assert httpx.post(f"{url}/datasets", json={"name": name}).status_code == 201
    labels = np.zeros((256, 256), np.uint8)
    labels[20:60, 20:60], labels[120:180, 120:180] = 1, 2
    files = {"image": ("a.tif", tiff_bytes(cells(side=256, seed=seed))), "masks": ("m.tif", tiff_bytes(labels))}
    item = httpx.post(f"{url}/datasets/{name}/items", files=files).json()
    place = f"{url}/datasets/{name}/items/{item['id']}"
    page.goto(f"{url}/#/correct/{name}/{item['id']}")
    page.locator("#selection-title").wait_for()
    page.get_by_text("All changes are stored.").wait_for()
    theirs = httpx.post(
        f"{place}/edits", json={"edits": [{"op": "delete", "labels": [2]}]}, headers={"If-Match": '"0"'}
    )
    assert theirs.status_code == 200
    page.get_by_role("button", name="All of this image is finished").click()
    keep = page.get_by_role("button", name="Store mine after theirs")
    keep.wait_for()
    picture(page, "page-conflict")
    keep.click()
    page.get_by_text("marked a region as finished").wait_for()
    edits = httpx.get(f"{place}/edits").json()["edits"]
    assert [one["edit"]["op"] for one in edits] == ["delete", "finish"]


def test_labels_are_downloaded(page: Any, url: str) -> None:
    send(page, tiff_bytes(cells(seed=7)), "download.tif")
    ask(page)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download", exact=True).click()
    labels = tifffile.imread(io.BytesIO(Path(waiting.value.path()).read_bytes()))
    assert labels.max() > 20


def test_a_token_is_asked_for_and_stays_in_the_tab(browser: Any, folders: Any, tmp_path: Path) -> None:
    settings = load_settings({"CYTORAY_HOME": str(tmp_path)})
    text, _ = create_token(tokens_path(settings), "ada", ("predict",), days=1)
    service = in_process(settings, config_of([str(folders.nuclei)], insecure_local=False))
    entrance = Entrance(service.api, secret=None, rules=lambda: service.rules)
    server = uvicorn.Server(uvicorn.Config(entrance, host="127.0.0.1", port=free_port(), log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    context = browser.new_context()
    opened = context.new_page()
    opened.set_default_timeout(SECONDS)
    opened.goto(f"http://127.0.0.1:{server.config.port}/")
    opened.get_by_label("Token").fill("cyt_0_1")
    opened.keyboard.press("Enter")
    opened.get_by_role("alert").wait_for()
    picture(opened, "page-token")
    opened.get_by_label("Token").fill(text)
    opened.keyboard.press("Enter")
    opened.get_by_text("ada").first.wait_for()
    assert context.cookies() == []
    assert text in opened.evaluate("JSON.stringify(sessionStorage)")
    assert text not in opened.evaluate("JSON.stringify(localStorage)")
    other = context.new_page()
    other.goto(f"http://127.0.0.1:{server.config.port}/")
    other.get_by_label("Token").wait_for()
    context.close()
    server.should_exit = True
    thread.join(30)
