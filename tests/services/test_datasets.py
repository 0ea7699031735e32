"""Data sets: how folders are understood, split and hashed."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytoray_analysis.errors import DatasetError, MissingFileError, RequestError
from cytoray_analysis.images import read_labels, write_labels
from cytoray_services.commands.columns import parse_columns
from cytoray_services.datasets import Dataset, Item, hash_dataset, make_segmentation, open_dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "cells"
    make_segmentation(folder, images=8, size=64, seed=3)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """Give the test a data set of its own to spoil."""
    return Path(shutil.copytree(made, tmp_path / "cells"))


def write_manifest(folder: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_a_manifest_names_images_truth_and_split(made: Path) -> None:
    dataset = open_dataset(made)
    assert len(dataset) == 8
    assert dataset.splits == ("train", "val")
    assert [len(dataset.split(split)) for split in dataset.splits] == [6, 2]
    item = dataset.items[0]
    assert item.image == made / "images" / "0000.tif"
    assert item.truth == made / "masks" / "0000.tif"
    assert item.row["kind"] == "fluo"


def test_columns_of_any_name_can_be_mapped(folder: Path) -> None:
    rows = [{"picture": "images/0000.tif", "cells": "masks/0000.tif", "part": "train"}]
    write_manifest(folder, rows)
    with pytest.raises(
        DatasetError, match=r"expected a column for the image in .*manifest\.csv; it has picture, cells, part"
    ):
        open_dataset(folder)
    dataset = open_dataset(folder, columns={"image": "picture", "mask": "cells", "split": "part"})
    assert dataset.items[0].truth == folder / "masks" / "0000.tif"
    assert dataset.splits == ("train",)
    with pytest.raises(DatasetError, match="'pictures' is mapped to image"):
        open_dataset(folder, columns={"image": "pictures"})


@pytest.mark.parametrize(("role", "close"), [("lable", "'label'"), ("Mask", "'mask'"), ("well", "omit 'well'")])
def test_a_column_that_is_mapped_to_no_role_is_refused(folder: Path, role: str, close: str) -> None:
    with pytest.raises(DatasetError, match=f"'{role}'") as raised:
        open_dataset(folder, columns={role: "cells"})
    assert close in (raised.value.hint or "")


def test_a_role_that_is_mapped_twice_is_refused() -> None:
    assert parse_columns(["mask=cells", "image=picture"]) == {"mask": "cells", "image": "picture"}
    with pytest.raises(RequestError, match="'cells' and 'nuclei'"):
        parse_columns(["mask=cells", "mask=nuclei"])


def test_a_manifest_of_classes_needs_no_masks(folder: Path) -> None:
    write_manifest(folder, [{"path": "images/0000.tif", "label": "RBC", "split": "train"}])
    dataset = open_dataset(folder)
    assert (dataset.truth_kind, dataset.items[0].label, dataset.items[0].truth) == ("class", "RBC", None)


def test_a_manifest_without_masks_or_classes_is_refused(folder: Path) -> None:
    write_manifest(folder, [{"image": "images/0000.tif", "split": "train"}])
    with pytest.raises(DatasetError, match=r"expected a column for the mask in .*manifest\.csv; it has image, split"):
        open_dataset(folder)


def test_a_manifest_from_a_spreadsheet_is_understood(folder: Path) -> None:
    text = "image,mask,split\r\nimages/0000.tif , masks/0000.tif,train\r\n"
    (folder / "manifest.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert open_dataset(folder).items[0].image.exists()


def test_a_manifest_that_is_no_text_is_refused(folder: Path) -> None:
    (folder / "manifest.csv").write_bytes(bytes(range(256)))
    with pytest.raises(DatasetError, match=r"expected a CSV file in UTF-8, got .*manifest\.csv"):
        open_dataset(folder)


@pytest.mark.parametrize("name", ["Manifest.csv", "MANIFEST.CSV"])
def test_a_manifest_in_capitals_is_not_overlooked(name: str, folder: Path) -> None:
    (folder / "manifest.csv").rename(folder / name)
    with pytest.raises(DatasetError, match=name) as caught:
        open_dataset(folder)
    assert "rename it to manifest.csv" in str(caught.value.hint)


def test_a_plain_folder_is_paired_by_name(folder: Path) -> None:
    (folder / "manifest.csv").unlink()
    shutil.copy(folder / "masks" / "0001.tif", folder / "masks" / "0000.ome.tif")
    (folder / "masks" / "0000.tif").unlink()
    dataset = open_dataset(folder)
    assert len(dataset) == 8
    assert dataset.items[0].truth == folder / "masks" / "0000.ome.tif"
    assert dataset.derived_split
    assert dataset.splits == ("train", "val")


def test_a_derived_split_follows_the_image_not_its_name(folder: Path) -> None:
    (folder / "manifest.csv").unlink()
    before = {item.image.read_bytes(): item.split for item in open_dataset(folder).items}
    for place in ("images", "masks"):
        for path in sorted((folder / place).iterdir()):
            path.rename(path.with_name(f"z{9 - int(path.stem)}.tif"))
    assert {item.image.read_bytes(): item.split for item in open_dataset(folder).items} == before


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ([], r"neither manifest\.csv nor one of images/ and masks/"),
        (["stuff"], r"neither manifest\.csv nor one of"),
        (["images"], "has images/ but neither masks/"),
        (["images", "masks"], "expected images in .*, there are none"),
    ],
)
def test_other_folders_are_refused(entries: list[str], match: str, tmp_path: Path) -> None:
    for entry in entries:
        (tmp_path / entry).mkdir()
    with pytest.raises(DatasetError, match=match):
        open_dataset(tmp_path)


def test_a_folder_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"expected a data set folder, .*nowhere does not exist"):
        open_dataset(tmp_path / "nowhere")


def test_an_unknown_split_names_those_that_exist(made: Path) -> None:
    with pytest.raises(DatasetError, match="no split 'test'; it has train, val"):
        open_dataset(made).split("test")


def test_items_are_chosen_by_any_column() -> None:
    items = tuple(Item(Path(f"{n}.tif"), None, "train", {"kind": kind}) for n, kind in enumerate(["fluo_a", "he"]))
    dataset = Dataset(Path(), items)
    assert [item.row["kind"] for item in dataset.where("kind", "fluo*").items] == ["fluo_a"]
    with pytest.raises(DatasetError, match="values are fluo_a, he"):
        dataset.where("kind", "phase*")
    with pytest.raises(DatasetError, match="no column 'stain'; it has kind"):
        dataset.where("stain", "*")


def test_the_hash_does_not_depend_on_place_or_order(made: Path, folder: Path) -> None:
    expected = hash_dataset(open_dataset(made))
    header, *lines = (folder / "manifest.csv").read_text().splitlines()
    (folder / "manifest.csv").write_text("\n".join([header, *reversed(lines)]) + "\n")
    assert hash_dataset(open_dataset(folder)) == expected
    assert len(expected) == 64


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    index=st.integers(0, 7), row=st.integers(0, 63), column=st.integers(0, 63), place=st.sampled_from(["image", "mask"])
)
def test_the_hash_changes_with_any_pixel(
    index: int, row: int, column: int, place: str, made: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = Path(shutil.copytree(made, tmp_path_factory.mktemp("hash") / "cells"))
    path = folder / f"{place}s" / f"{index:04d}.tif"
    labels = read_labels(path)
    labels[row, column] += 1
    write_labels(path, labels)
    assert hash_dataset(open_dataset(folder)) != hash_dataset(open_dataset(made))


def test_the_hash_changes_with_a_split_a_class_or_a_missing_item(folder: Path) -> None:
    digests = {hash_dataset(open_dataset(folder))}
    text = (folder / "manifest.csv").read_text()
    (folder / "manifest.csv").write_text(text.replace("train", "val", 1))
    digests.add(hash_dataset(open_dataset(folder)))
    (folder / "manifest.csv").write_text("\n".join(text.splitlines()[:-1]) + "\n")
    digests.add(hash_dataset(open_dataset(folder)))
    for label in ("RBC", "WBC"):
        write_manifest(folder, [{"path": "images/0000.tif", "label": label, "split": "train"}])
        digests.add(hash_dataset(open_dataset(folder)))
    assert len(digests) == 5


def test_the_hash_of_a_missing_file_is_an_error(folder: Path) -> None:
    (folder / "images" / "0002.tif").unlink()
    with pytest.raises(MissingFileError, match=r"0002\.tif"):
        hash_dataset(open_dataset(folder))


def test_labels_and_manifest_agree_on_the_number_of_objects(made: Path) -> None:
    for item in open_dataset(made).items:
        assert item.truth is not None
        assert int(read_labels(item.truth).max()) == int(item.row["n_objects"])
        assert np.unique(read_labels(item.truth)).size == int(item.row["n_objects"]) + 1
