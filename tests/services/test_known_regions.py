"""Pixels that a mask of the manifest calls unknown count neither in scores nor in the check of the data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cytoray_analysis.errors import DatasetError
from cytoray_analysis.images import read_labels
from cytoray_services.datasets import Dataset, check_dataset, hash_dataset, open_dataset, read_labelled
from known_regions import known_of, make_known

HASH = "7303b27b4e4c2226dc38d2b1932a41c5fabe2d5ae7d099b1a9aab5a131af40b8"


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(make_known(tmp_path_factory.mktemp("known")))


def test_unknown_pixels_are_minus_one_and_known_ones_as_in_the_mask(known: Dataset) -> None:
    for items in known.images:
        truth = read_labelled(known, items, {}).truth
        assert items[0].truth is not None
        labels = read_labels(items[0].truth)
        np.testing.assert_array_equal(truth, np.where(known_of(labels), labels.astype(int), -1))


def test_masks_of_classes_have_unknown_pixels_as_well(known: Dataset) -> None:
    arguments = {"values": {number: "foreground" if number else "background" for number in range(400)}}
    truth = read_labelled(known, known.images[0], arguments).truth
    assert np.unique(truth).tolist() == [-1, 0, 1]


def test_labels_larger_than_the_image_keep_their_order(tmp_path: Path, known: Dataset) -> None:
    item = known.items[0]
    assert item.truth is not None
    labels = read_labels(item.truth).astype(np.uint32)
    tifffile.imwrite(tmp_path / "large.tif", labels * np.uint32(1_000_000))
    truth = read_labelled(known, (replace(item, truth=tmp_path / "large.tif"),), {}).truth
    present = np.unique(labels)
    np.testing.assert_array_equal(truth, np.where(known_of(labels), np.searchsorted(present, labels), -1))


def test_the_content_hash_depends_on_what_is_known(tmp_path: Path, known: Dataset) -> None:
    one, other = (open_dataset(make_known(tmp_path / name)) for name in ("one", "other"))
    assert hash_dataset(one) == hash_dataset(other) == hash_dataset(known)
    path = other.items[0].known
    assert path is not None
    tifffile.imwrite(path, np.ones((96, 96), np.uint8))
    assert hash_dataset(other) != hash_dataset(one)


def test_a_data_set_without_such_masks_has_the_hash_that_it_always_had(tmp_path: Path) -> None:
    """The registry has recorded it; it was computed before there were masks of known pixels."""
    for name in ("image", "mask"):
        (tmp_path / f"{name}s").mkdir()
        (tmp_path / f"{name}s" / "a.tif").write_bytes(f"the {name}".encode())
    (tmp_path / "manifest.csv").write_text("image,mask,split\nimages/a.tif,masks/a.tif,train\n")
    assert hash_dataset(open_dataset(tmp_path)) == HASH


def test_the_check_finds_nothing_in_a_sound_set_and_does_not_look_at_unknown_labels(tmp_path: Path) -> None:
    dataset = open_dataset(make_known(tmp_path, scrambled=1))
    found = [finding for finding in check_dataset(dataset) if finding.code != "cut-objects"]
    assert [finding for finding in found if finding.severity == "error"] == []
    assert {finding.code for finding in found} <= {"unlike-others", "no-test-split"}


def test_the_check_names_objects_that_are_known_in_part(tmp_path: Path) -> None:
    dataset = open_dataset(make_known(tmp_path))
    item = dataset.items[0]
    assert item.truth is not None
    assert item.known is not None
    half = np.zeros((96, 96), np.uint8)
    half[:, :48] = 1
    tifffile.imwrite(item.known, half)
    (finding,) = (one for one in check_dataset(dataset) if one.code == "cut-objects")
    assert finding.file == f"known/{item.known.name}"


@pytest.mark.parametrize(
    ("mask", "code"),
    [(np.ones((90, 96), np.uint8), "size-mismatch"), (np.full((96, 96), 0.5, np.float32), "wrong-axes")],
)
def test_the_check_refuses_a_mask_that_does_not_fit(tmp_path: Path, mask: np.ndarray, code: str) -> None:
    dataset = open_dataset(make_known(tmp_path))
    path = dataset.items[0].known
    assert path is not None
    tifffile.imwrite(path, mask)
    assert [(one.file, one.code) for one in check_dataset(dataset) if one.severity == "error"] == [
        (f"known/{path.name}", code)
    ]
    if code == "size-mismatch":
        with pytest.raises(DatasetError, match="the size of its labels"):
            read_labelled(dataset, dataset.images[0], {})
    path.unlink()
    assert [one.code for one in check_dataset(dataset) if one.severity == "error"] == ["missing-file"]


def test_the_check_refuses_a_split_in_which_nothing_is_known(tmp_path: Path) -> None:
    dataset = open_dataset(make_known(tmp_path))
    for item in dataset.split("val").items:
        assert item.known is not None
        tifffile.imwrite(item.known, np.zeros((96, 96), np.uint8))
    found = [one for one in check_dataset(dataset) if one.code == "nothing-known"]
    assert (found[0].severity, found[0].file) == ("error", ".")
    assert {one.severity for one in found[1:]} == {"note"}


def test_the_role_is_for_label_images_only(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("image,label,known,split\na.png,round,yes,train\n")
    assert open_dataset(tmp_path).items[0].known is None
    with pytest.raises(DatasetError, match="for label images only"):
        open_dataset(tmp_path, columns={"known": "known"})
