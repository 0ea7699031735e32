"""Synthetic cells of known classes: exact boxes, the wanted balance, distinguished by shape and texture alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cytoray_analysis.errors import DatasetError, RequestError
from cytoray_analysis.images import read_image
from cytoray_services.datasets import Dataset, Item, hash_dataset, open_dataset
from cytoray_services.datasets.check import count_classes, imbalance
from cytoray_services.datasets.synthetic.classification import CLASSES, CROP, draw_cells, make_classification


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_classification(tmp_path_factory.mktemp("made") / "cells", images=8, size=256, seed=1)


def region_of(item: Item) -> tuple[slice, slice]:
    assert item.box is not None
    (top, left), (bottom, right) = item.box
    return slice(int(top), int(bottom)), slice(int(left), int(right))


def cells_of(dataset: Dataset, label: str) -> list[np.ndarray]:
    fields = {image: read_image(image).read() for image in {item.image for item in dataset.items}}
    return [fields[item.image][region_of(item)].astype(float) for item in dataset.items if item.label == label]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(dataset: Dataset, tmp_path: Path) -> None:
    again = make_classification(tmp_path / "again", images=8, size=256, seed=1)
    other = make_classification(tmp_path / "other", images=8, size=256, seed=2)
    assert hash_dataset(again) == hash_dataset(dataset)
    assert hash_dataset(other) != hash_dataset(dataset)


def test_it_opens_as_classes_with_a_box_per_cell(dataset: Dataset) -> None:
    assert dataset.truth_kind == "class"
    assert {item.label for item in dataset.items} == set(CLASSES)
    assert all(item.box is not None for item in dataset.items)
    assert Counter(item.split for item in dataset.items) == {"train": 6 * 22, "val": 2 * 22}
    assert len(dataset.images) == 8


def test_boxes_hold_their_cell_and_touch_no_other(dataset: Dataset) -> None:
    for items in dataset.images:
        covered = np.zeros((256, 256), int)
        field = read_image(items[0].image).read().astype(float)
        for item in items:
            covered[region_of(item)] += 1
        assert covered.max() == 1
        inside, outside = field[covered == 1], field[covered == 0]
        assert inside.mean() > 2 * outside.mean()
        assert outside.max() < inside.max() / 2


def test_classes_differ_in_shape_and_texture(dataset: Dataset) -> None:
    def middle_over_all(cell: np.ndarray) -> float:
        y, x = (length // 2 for length in cell.shape)
        return float(cell[y - 2 : y + 3, x - 2 : x + 3].mean() / cell.mean())

    def roughness(cell: np.ndarray) -> float:
        y, x = (length // 4 for length in cell.shape)
        core = cell[y:-y, x:-x]
        return float(core.std() / core.mean())

    def fill(cell: np.ndarray) -> float:  # of the square around it
        return float(min(cell.shape) / max(cell.shape))

    assert np.median([middle_over_all(cell) for cell in cells_of(dataset, "ring")]) < 0.9
    assert np.median([middle_over_all(cell) for cell in cells_of(dataset, "round")]) > 1.2
    rough = {label: np.median([roughness(cell) for cell in cells_of(dataset, label)]) for label in CLASSES}
    assert rough["granular"] > 2 * rough["round"]
    filled = {label: np.median([fill(cell) for cell in cells_of(dataset, label)]) for label in CLASSES}
    assert filled["spindle"] < 0.75 < min(filled[label] for label in CLASSES if label != "spindle")


def test_brightness_does_not_tell_the_class(dataset: Dataset) -> None:
    sums = {label: np.mean([cell.sum() for cell in cells_of(dataset, label)]) for label in CLASSES}
    assert max(sums.values()) < 1.6 * min(sums.values())


def test_classes_are_equal_unless_asked_otherwise(dataset: Dataset) -> None:
    assert all(imbalance(counts) < 1.2 for counts in count_classes(dataset).values())


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [2.0, 8.0])
def test_every_split_has_the_wanted_imbalance(wanted: float, tmp_path: Path) -> None:
    counts = count_classes(make_classification(tmp_path / "cells", images=16, size=320, imbalance=wanted))
    for split in ("train", "val"):
        assert imbalance(counts[split]) == pytest.approx(wanted, rel=0.15)
        assert list(counts[split]) == list(CLASSES)


def test_a_class_that_is_rare_beyond_measure_still_has_a_cell_in_each_split(tmp_path: Path) -> None:
    counts = count_classes(make_classification(tmp_path / "cells", images=4, size=160, imbalance=1000))
    assert [set(counts[split]) for split in ("train", "val")] == [set(CLASSES)] * 2


@pytest.mark.slow
def test_folders_hold_the_same_cells_cut_out(dataset: Dataset, tmp_path: Path) -> None:
    cut = make_classification(tmp_path / "cut", images=8, size=256, seed=1, layout="folders")
    given = count_classes(open_dataset(tmp_path / "cut", drawing_test=False))
    assert given == count_classes(dataset)
    assert not (tmp_path / "cut" / "manifest.csv").exists()
    items = {item.image.relative_to(tmp_path / "cut").as_posix(): item for item in cut.items}
    first = dataset.items[0]
    item = items[f"{first.split}/{first.label}/0000_00.tif"]
    field, crop = read_image(first.image).read()[region_of(first)], read_image(item.image).read()
    assert crop.shape == (CROP, CROP)
    top, left = ((CROP - length) // 2 for length in field.shape)
    window = [crop[y : y + field.shape[0], x : x + field.shape[1]] for y in (top, top + 1) for x in (left, left + 1)]
    assert any(np.array_equal(part, field) for part in window)


@pytest.mark.parametrize("size", [(80, 400), (333, 97), 80])
def test_fields_can_have_any_size(size: int | tuple[int, int], tmp_path: Path) -> None:
    made = make_classification(tmp_path / "cells", images=2, size=size, classes=2)
    expected = (size, size) if isinstance(size, int) else size
    assert {read_image(item.image).shape for item in made.items} == {expected}


def test_more_cells_than_squares_cannot_be_drawn() -> None:
    with pytest.raises(RequestError, match="at most 4 cells, got 5"):
        draw_cells(np.random.default_rng(0), (80, 80), ["round"] * 5)
    image, cells = draw_cells(np.random.default_rng(0), (80, 80), ["round"] * 4)
    assert (image.shape, len(cells)) == ((80, 80), 4)


@pytest.mark.parametrize(
    "arguments",
    [
        {"images": 0},
        {"size": 79},
        {"seed": -1},
        {"classes": 1},
        {"classes": 5},
        {"imbalance": 0.5},
        {"imbalance": float("nan")},
        {"layout": "heap"},
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="expected"):
        make_classification(tmp_path / "cells", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "cells").exists()


def test_a_folder_that_holds_something_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"expected a new or empty folder, .* contains files"):
        make_classification(tmp_path, images=1, size=80)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert len(make_classification(tmp_path, images=1, size=80, overwrite=True)) > 0
