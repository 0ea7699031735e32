"""The decoded data set: the right pixels, once, whoever asks."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from cytoray_analysis.bundle import ModelInput, TaskChoice
from cytoray_analysis.errors import DatasetError
from cytoray_analysis.images import IntensityScaling, read_image, read_labels, write_image, write_labels
from cytoray_analysis.images import image_from_array as image_of
from cytoray_analysis.model_input import prepare
from cytoray_services.datasets import Dataset, hash_dataset, open_dataset, remove_abandoned
from cytoray_services.in_use import use
from cytoray_training.data import cache as cache_module
from cytoray_training.data.cache import Cache, cache_key, open_cache

GREY = ModelInput(channels=("grey",))
TASK = TaskChoice(name="segmentation")


def opened(caches: Path, dataset: Dataset, model_input: ModelInput = GREY) -> Cache:
    return open_cache(caches, dataset, hash_dataset(dataset), model_input, TASK)


def test_it_holds_the_pixels_and_labels_of_every_training_image(tmp_path: Path, cells: Dataset) -> None:
    cache = opened(tmp_path, cells)
    items = cells.split("train").items
    assert [entry.file for entry in cache.entries] == [f"images/{item.image.name}" for item in items]
    for index, item in enumerate(items):
        image = read_image(item.image).select("CYX").read()
        assert cache.pixels(index).pixels.dtype == image.dtype
        np.testing.assert_array_equal(cache.pixels(index).pixels, image)
        assert item.truth is not None
        np.testing.assert_array_equal(cache.truth(index), read_labels(item.truth))


@pytest.mark.parametrize("scope", ["image", "dataset"])
def test_pixels_are_scaled_as_the_predictor_scales_them(tmp_path: Path, cells: Dataset, scope: str) -> None:
    model_input = ModelInput(channels=("grey",), scaling=IntensityScaling.model_validate({"scope": scope}))
    cache = opened(tmp_path, cells, model_input)
    item = cells.split("train").items[0]
    seen = prepare(read_image(item.image), model_input.model_copy(update={"statistics": cache.statistics}))
    region = (slice(5, 70), slice(11, 90))
    np.testing.assert_allclose(cache.pixels(0).read(region), seen.read(region), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_it_is_decoded_once_and_who_waits_for_it_does_not_wait_for_the_end_of_another_training_run(
    tmp_path: Path, cells: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault of the past: two workers of one machine that began at the same moment could wait for each other."""
    few = replace(cells, items=cells.split("train").items[:1])
    for number in range(20):
        calls: list[int] = []
        caches: list[Cache] = []
        begin = threading.Barrier(4)
        late = threading.local()

        def use_together(folder: Path, late: threading.local = late, begin: threading.Barrier = begin) -> BinaryIO:
            in_use = use(folder)
            if not hasattr(late, "met"):
                late.met = begin.wait(60)
            return in_use

        def ask(folder: Path, calls: list[int], caches: list[Cache]) -> None:
            caches.append(open_cache(folder, few, "hash", GREY, TASK, progress=lambda done, _: calls.append(done)))

        monkeypatch.setattr(cache_module, "use", use_together)
        workers = [
            threading.Thread(target=ask, args=(tmp_path / str(number), calls, caches), daemon=True) for _ in range(4)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(30)
        assert len(caches) == 4
        assert calls == [1]
        assert len({cache.folder for cache in caches}) == 1


def test_other_data_or_another_view_of_it_or_another_task_is_another_cache() -> None:
    keys = {
        cache_key("a", GREY, TASK),
        cache_key("b", GREY, TASK),
        cache_key("a", GREY, TaskChoice(name="label_free", arguments={"channels": ["nucleus"]})),
        cache_key("a", GREY, masks_of({"0": "background", "255": "foreground"})),
        cache_key("a", GREY, masks_of({"0": "foreground", "255": "background"})),
        cache_key("a", GREY.model_copy(update={"pixel_size": {"Y": 0.5, "X": 0.5}}), TASK),
        cache_key("a", GREY.model_copy(update={"scaling": IntensityScaling(method="zscore")}), TASK),
    }
    assert len(keys) == 7


def masks_of(values: dict[str, str]) -> TaskChoice:
    return TaskChoice(name="semantic_segmentation", arguments={"values": values})


def test_trainings_that_differ_in_their_loss_alone_share_a_cache(tmp_path: Path, cells: Dataset) -> None:
    tasks = [TaskChoice(name="segmentation", arguments=one) for one in ({}, {"boundary_weight": 2.0}, {"reach": 96})]
    folders = {open_cache(tmp_path, cells, "hash", GREY, task).folder for task in tasks}
    assert len(folders) == 1


def test_what_a_killed_process_has_left_is_removed_by_the_next(tmp_path: Path, cells: Dataset) -> None:
    other = tmp_path / f".{'f' * 32}.{'0' * 12}"  # of another cache, which another process may be writing
    other.mkdir()
    killed = os.fork()
    if not killed:
        open_cache(tmp_path, cells, "hash", GREY, TASK, progress=lambda done, total: os._exit(0))
    os.waitpid(killed, 0)
    assert len(list(tmp_path.glob(".*"))) == 2
    cache = open_cache(tmp_path, cells, "hash", GREY, TASK)
    assert {path for path in tmp_path.iterdir() if path.is_dir()} == {other, cache.folder}


def test_files_that_passed_through_a_killed_process_are_removed_and_those_of_a_live_one_stay(tmp_path: Path) -> None:
    dead, alive = tmp_path / "passing-dead", tmp_path / "passing-alive"
    for folder in (dead, alive):
        (folder / "files").mkdir(parents=True)
    use(dead / "files").close()
    with use(alive / "files"):
        remove_abandoned(tmp_path)
        assert list(tmp_path.iterdir()) == [alive]
    remove_abandoned(tmp_path)
    assert not alive.exists()


def test_statistics_come_from_the_training_images_only(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    rows = ["image,mask,split"]
    for name, split, brightness in (("a", "train", 100), ("b", "val", 5000)):
        pixels = (noise.random((64, 64)) * brightness).astype(np.uint16)
        write_image(tmp_path / "data" / "images" / f"{name}.tif", image_of(pixels, "YX"))
        write_labels(tmp_path / "data" / "masks" / f"{name}.tif", np.ones((64, 64), np.uint16))
        rows.append(f"images/{name}.tif,masks/{name}.tif,{split}")
    (tmp_path / "data" / "manifest.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    cache = opened(tmp_path / "caches", open_dataset(tmp_path / "data"))
    assert cache.statistics.high[0] <= 100


def test_grey_images_are_repeated_where_the_model_takes_colour(tmp_path: Path, cells: Dataset) -> None:
    rgb = ModelInput(channels=("red", "green", "blue"), grey_as_rgb=True)
    pixels = opened(tmp_path, cells, rgb).pixels(0).pixels
    assert pixels.shape[0] == 3
    np.testing.assert_array_equal(pixels[0], pixels[2])


def test_a_data_set_without_training_images_is_refused_and_leaves_nothing(tmp_path: Path, cells: Dataset) -> None:
    with pytest.raises(DatasetError, match="train"):
        opened(tmp_path, cells.split("val"))
    assert {path.suffix for path in tmp_path.iterdir()} == {".lock"}
