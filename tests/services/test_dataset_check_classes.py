"""The check of classes: labels, boxes, balance, and cells in two splits."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.images import image_from_array, read_image, write_image
from cytoray_services.datasets import Dataset, Finding, Item, check_dataset, open_dataset
from cytoray_services.datasets.check import count_classes, imbalance
from cytoray_services.datasets.check.checks import read_facts
from cytoray_services.datasets.synthetic.classification import make_classification
from folder_checks import check_folder

Row = dict[str, str]
NAMES = ("path", "label", "split", "xmin", "ymin", "xmax", "ymax")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "cells"
    make_classification(folder, images=8, size=320, seed=3)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "cells"))


def rows_of(folder: Path) -> list[Row]:
    with (folder / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(folder: Path, rows: Sequence[Row], names: Sequence[str] = NAMES) -> None:
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def change(folder: Path, edit: Callable[[list[Row]], list[Row] | None]) -> None:
    rows = rows_of(folder)
    write_rows(folder, edit(rows) or rows)


def unlabel(rows: list[Row]) -> None:
    rows[0]["label"] = rows[1]["label"] = ""


def swap_sides(rows: list[Row]) -> None:
    rows[2]["xmin"], rows[2]["xmax"] = rows[2]["xmax"], rows[2]["xmin"]


def no_number(rows: list[Row]) -> None:
    rows[2]["ymax"] = "nan"


def move_out(rows: list[Row]) -> None:
    rows[0] |= {"xmin": "330", "xmax": "350"}


def lose_in_training(rows: list[Row]) -> list[Row]:
    return [row for row in rows if (row["label"], row["split"]) != ("ring", "train")]


def lose_in_validation(rows: list[Row]) -> list[Row]:
    return [row for row in rows if (row["label"], row["split"]) != ("ring", "val")]


def keep_few_rings(rows: list[Row]) -> list[Row]:
    rings = [row for row in rows if (row["label"], row["split"]) == ("ring", "val")]
    return [row for row in rows if row not in rings[3:]]


def keep_one_class(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["label"] == "ring"]


def copy_to_validation(rows: list[Row]) -> list[Row]:
    # The same cell a pixel aside, as when somebody drew its box twice.
    twin = rows[0] | {"split": "val", "xmin": str(int(rows[0]["xmin"]) + 1)}
    return [*rows, twin]


def move_to_validation(rows: list[Row]) -> None:
    rows[0]["split"] = "val"


PLANTS: list[tuple[str, str, str, Callable[[list[Row]], list[Row] | None]]] = [
    ("missing-label", "error", "images/0000.tif", unlabel),
    ("empty-box", "error", "images/0000.tif", swap_sides),
    ("empty-box", "error", "images/0000.tif", no_number),
    ("box-outside", "error", "images/0000.tif", move_out),
    ("class-missing", "error", ".", lose_in_training),
    ("class-missing", "error", ".", lose_in_validation),
    ("rare-class", "warning", ".", keep_few_rings),
    ("single-class", "error", ".", keep_one_class),
    ("duplicate-across-splits", "error", "images/0000.tif", copy_to_validation),
    ("shared-image", "warning", "images/0000.tif", move_to_validation),
]


@pytest.mark.slow
def test_good_classes_have_no_findings(made: Path) -> None:
    assert check_folder(made) == []


@pytest.mark.slow
@pytest.mark.parametrize(("code", "severity", "file", "plant"), PLANTS, ids=[f"{p[0]} {p[3].__name__}" for p in PLANTS])
def test_what_is_planted_is_found(
    code: str, severity: str, file: str, plant: Callable[[list[Row]], list[Row] | None], folder: Path
) -> None:
    change(folder, plant)
    (finding,) = check_folder(folder)
    assert (finding.code, finding.severity, finding.file) == (code, severity, file)
    assert finding.problem
    assert finding.remedy


def test_a_class_that_training_never_saw_names_class_and_split(folder: Path) -> None:
    change(folder, lose_in_training)
    assert check_folder(folder)[0].problem == "class 'ring' has no example in split 'train'"


def test_a_cell_at_the_border_may_reach_out_of_the_image(folder: Path) -> None:
    change(folder, lambda rows: rows[0].update(xmin="-10", xmax="20"))
    assert check_folder(folder) == []


def test_boxes_of_planes_on_volumes_are_found(folder: Path) -> None:
    dataset = open_dataset(folder)
    items = tuple(replace(item, box=((0.0, 0.0, 0.0), (1.0, 9.0, 9.0))) for item in dataset.items)
    found = check_dataset(replace(dataset, items=items))
    assert {(finding.code, finding.problem) for finding in found} == {
        ("wrong-axes", "expected boxes with 2 axes like the image, got 3")
    }


def test_the_same_cell_is_found_in_a_copy_of_its_image(folder: Path) -> None:
    write_image(folder / "copy.ome.tif", image_from_array(read_image(folder / "images/0000.tif").read(), "YX"))
    change(folder, lambda rows: [*rows, rows[0] | {"path": "copy.ome.tif", "split": "val"}])
    (finding,) = check_folder(folder)
    assert (finding.code, finding.file) == ("duplicate-across-splits", "copy.ome.tif")
    assert "as images/0000.tif, in split 'train'" in finding.problem


def test_a_whole_image_in_two_splits_is_found(folder: Path) -> None:
    rows = [
        {"path": f"images/{index:04d}.tif", "label": label, "split": split}
        for index, label, split in [(0, "a", "train"), (1, "b", "train"), (1, "b", "val"), (2, "a", "val")]
    ]
    write_rows(folder, rows, ("path", "label", "split"))
    assert codes(check_folder(folder)) == ["duplicate-across-splits", *["rare-class"] * 4]


def test_an_image_of_many_cells_is_read_once(made: Path) -> None:
    dataset = open_dataset(made)
    assert len(read_facts(dataset)) == 8 < len(dataset.items)


@pytest.mark.slow
def test_imbalance_is_noted_with_counts_and_remedy(tmp_path: Path) -> None:
    dataset = make_classification(tmp_path / "cells", images=8, size=400, imbalance=6)
    (finding,) = check_dataset(dataset, required_splits=("train",))
    assert (finding.code, finding.severity, finding.file) == ("class-imbalance", "note", ".")
    counts = count_classes(dataset)["train"]
    assert f"round {counts['round']}, granular {counts['granular']}" in finding.problem
    assert "data.balance" in finding.remedy
    assert imbalance(counts) == pytest.approx(6, rel=0.15)


def test_notes_come_last(tmp_path: Path) -> None:
    dataset = make_classification(tmp_path / "cells", images=8, size=240, imbalance=8)
    found = [finding.severity for finding in check_dataset(dataset)]
    assert found == ["warning"] * (len(found) - 1) + ["note"]
    assert len(found) > 1


@pytest.mark.slow
def test_a_folder_per_class_is_checked_as_well(tmp_path: Path) -> None:
    make_classification(tmp_path / "cells", images=8, size=320, layout="folders")
    assert codes(check_folder(tmp_path / "cells")) == ["no-test-split"]
    shutil.rmtree(tmp_path / "cells" / "train" / "ring")
    assert "class-missing" in codes(check_folder(tmp_path / "cells"))


@given(
    st.lists(st.tuples(st.sampled_from(["train", "val"]), st.sampled_from(["a", "b", "c"])), min_size=1, max_size=40),
)
def test_every_item_is_counted_once(pairs: list[tuple[str, str]]) -> None:
    items = tuple(Item(Path("x.tif"), None, split, label=label) for split, label in pairs)
    counts = count_classes(Dataset(Path(), items, "class"))
    assert sum(count for classes in counts.values() for count in classes.values()) == len(pairs)
    assert all(imbalance(classes) >= 1 for classes in counts.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("bccd", marks=pytest.mark.long), "chula_rbc12"])
def test_of_real_classes_only_the_imbalance_is_noted(name: str, shared_data: Path) -> None:
    assert sorted(codes(check_folder(shared_data / "classification" / name))) == ["class-imbalance", "no-test-split"]


def codes(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings]
