"""Plain folders: which truth belongs to which image, and which folders are splits."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.errors import DatasetError
from cytoray_analysis.images import image_from_array, write_image, write_labels
from cytoray_services.datasets import open_dataset
from cytoray_services.datasets.pairing import pair_by_name
from folder_checks import check_folder


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def pairs(images: list[str], truths: list[str]) -> dict[str, str]:
    found = pair_by_name([Path("images", name) for name in images], [Path("masks", name) for name in truths])
    return {image.name: truth.name for image, truth in found.truth_of.items()}


@pytest.mark.parametrize(
    ("image", "truth"),
    [
        ("x.tif", "x.tif"),
        ("x.tif", "x.png"),
        ("x.ome.tif", "x.tif"),
        ("x.tif", "x.ome.zarr"),
        ("x.tif", "x_mask.tif"),
        ("x.tif", "x_labels.png"),
        ("x.jpg", "x-mask.png"),
        ("x.tif", "x.mask.tif"),
        ("x.tif", "x_cp_masks.tif"),
        ("x.tif", "x.tif_mask.png"),
        ("003_img.png", "003_masks.png"),
        (unicodedata.normalize("NFD", "télo.tif"), unicodedata.normalize("NFC", "télo_seg.tif")),
    ],
)
def test_a_truth_is_found_by_the_name_of_its_image(image: str, truth: str) -> None:
    others = ["plate1.A0.tif", "plate1.A1.tif", "y.0.5uM.tif", "y.0.6uM.tif"]
    assert pairs([image, *others], [truth, *others]) == {image: truth, **{name: name for name in others}}


@pytest.mark.slow
@given(st.lists(st.from_regex(r"[a-c][a-c._]{0,3}[a-c](\.tif|\.png)", fullmatch=True), unique=True, max_size=8))
def test_full_names_pair_with_themselves_whatever_else_is_there(names: list[str]) -> None:
    assert pairs(names, names[::-1]) == {name: name for name in names}


@pytest.mark.parametrize(
    ("images", "truths", "said"),
    [
        (["x.tif"], ["x.png", "x_mask.tif"], r"masks/x\.png and masks/x_mask\.tif have the same name"),
        (["x.tif"], ["x.tif", "x.png"], r"masks/x\.tif and masks/x\.png"),
        (["x.tif"], ["x.tif", "x_mask.tif"], r"masks/x\.tif and masks/x_mask\.tif"),
        (["x.tif", "x.png"], ["x.tif"], r"images/x\.tif and images/x\.png"),
        (["x.jpg", "x.png"], ["x_mask.tif"], r"images/x\.jpg and images/x\.png"),
        (["\u00e9.tif", "e\u0301.tif"], ["\u00e9.tif"], r"images/.* and images/.* have the same name"),
    ],
)
def test_two_files_that_claim_one_name_are_an_error(images: list[str], truths: list[str], said: str) -> None:
    with pytest.raises(DatasetError, match=said) as caught:
        pairs(images, truths)
    assert caught.value.hint


def test_ambiguous_names_are_a_finding_of_the_check(tmp_path: Path) -> None:
    touch(tmp_path, "images/x.tif", "masks/x.png", "masks/x_mask.tif")
    (finding,) = check_folder(tmp_path)
    assert (finding.code, finding.severity) == ("ambiguous-name", "error")
    assert "x_mask.tif" in finding.problem


def test_a_mask_without_an_image_is_reported(tmp_path: Path) -> None:
    touch(tmp_path, "images/x.tif", "masks/x.tif", "masks/y.tif", "masks/notes.txt", "stray.tif")
    found = [finding for finding in check_folder(tmp_path) if finding.code == "unused-file"]
    assert [(finding.file, finding.severity) for finding in found] == [
        ("masks/y.tif", "warning"),
        ("stray.tif", "warning"),
    ]


@pytest.mark.parametrize("names", [("images", "masks", "labels"), ("inputs", "targets", "image")])
@pytest.mark.parametrize("outside", [True, False])
def test_folders_of_splits_are_read_as_what_they_are(
    tmp_path: Path, names: tuple[str, str, str], outside: bool
) -> None:
    images, truths, kind = names
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        for number in range(count):
            for part in (images, truths):
                touch(tmp_path, f"{split}/{part}/a{number}.tif" if outside else f"{part}/{split}/a{number}.tif")
    dataset = open_dataset(tmp_path)
    assert (dataset.truth_kind, dataset.derived_split) == (kind, False)
    assert {split: len(dataset.split(split)) for split in dataset.splits} == {"train": 3, "val": 2, "test": 1}
    assert all(item.truth is not None and item.truth.exists() for item in dataset.items)
    assert all(item.split in item.truth.parts for item in dataset.items if item.truth)


def test_movies_in_folders_of_splits_are_lineages(tmp_path: Path) -> None:
    touch(tmp_path, "train/01/t000.tif", "train/01_GT/TRA/man_track.txt", "val/02/t000.tif", "val/02_GT/TRA/a.txt")
    touch(tmp_path, "val/03/t000.tif")
    dataset = open_dataset(tmp_path)
    assert [(item.split, item.image.name) for item in dataset.items] == [("train", "01"), ("val", "02")]
    assert dataset.truth_kind == "lineage"
    assert dataset.unused == (tmp_path / "val" / "03",)


@pytest.mark.parametrize("typo", ["Train", "VAL", "trian", "validation", "tets", "val "])
def test_a_folder_that_is_nearly_a_split_is_an_error(tmp_path: Path, typo: str) -> None:
    touch(tmp_path, "train/images/a.tif", "train/masks/a.tif", f"{typo}/images/b.tif", f"{typo}/masks/b.tif")
    (finding,) = check_folder(tmp_path)
    assert (finding.code, finding.severity) == ("unknown-split", "error")
    assert typo in finding.problem


def test_other_names_of_splits_are_left_alone(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{split}/{kind}/a.tif" for split in ("train", "val", "holdout") for kind in ("round", "long")))
    assert open_dataset(tmp_path).splits == ("holdout", "train", "val")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("Images/a.tif", "Masks/a.tif"), "look like images and their truth"),
        (("img/a.tif", "labels/a.tif"), "look like images and their truth"),
        (("train/Images/a.tif", "train/Masks/a.tif", "val/x/a.tif"), "look like images and their truth"),
        (("imagesTr/a_0000.tif", "labelsTr/a.tif", "imagesTs/b_0000.tif"), "has imagesTr/ and labelsTr/"),
        (("raw/a.tif", "ground_truth/a_mask.png"), "has raw/ and ground_truth/"),
        (("train/imagesTr/a.tif", "train/labelsTr/a.tif", "val/x/a.tif"), "look like images and their truth"),
        (("1/images/1.png", "1/masks/a.png", "2/images/2.png", "2/masks/b.png"), "1/, which contains images/, masks/"),
        (("a/images/1.png", "a/masks/1.png"), "a/, which contains images/, masks/"),
        (("01/t000.tif", "01_ST/SEG/man_seg000.tif"), "looks like the truth or the result of a movie"),
        (("train/a.tif", "val/b.tif"), "contain neither images/ and masks/ nor a folder per class"),
        (("train/images/a.tif", "train/masks/a.tif", "val/x/a.tif"), "one layout in all splits"),
    ],
)
def test_folders_that_are_no_classes_are_not_read_as_classes(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    touch(tmp_path, *names)
    with pytest.raises(DatasetError, match=said) as caught:
        open_dataset(tmp_path)
    assert caught.value.field


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (("images/a.tif", "labels/a.tif"), "if labels/ contains it, rename that to masks/"),
        (("a.tif", "a_masks.png"), "put the images into images/ and their truth into masks/"),
        (("a.tif", "a_seg.npy"), "_seg.npy of Cellpose is not supported"),
    ],
)
def test_a_layout_of_other_programs_is_reported_with_a_hint(tmp_path: Path, names: tuple[str, ...], hint: str) -> None:
    touch(tmp_path, *names)
    with pytest.raises(DatasetError) as caught:
        open_dataset(tmp_path)
    assert hint in str(caught.value.hint)


def test_classes_may_have_words_of_images_and_truth_in_their_names(tmp_path: Path) -> None:
    touch(tmp_path, "raw cells/a.tif", "target cells/b.tif", "unlabelled/c.tif")
    assert {item.label for item in open_dataset(tmp_path).items} == {"raw cells", "target cells", "unlabelled"}


def test_classes_may_be_called_like_a_split(tmp_path: Path) -> None:
    touch(tmp_path, "test/a.tif", "control/b.tif", "best/c.tif")
    assert {item.label for item in open_dataset(tmp_path).items} == {"test", "control", "best"}


def shared_masks(root: Path, *splits: str) -> Path:
    random = np.random.default_rng(0)
    (root / "images").mkdir()
    (root / "masks").mkdir()
    labels = np.zeros((16, 16), np.uint16)
    labels[4:9, 4:9] = 1
    for number in range(len(splits)):
        pixels = random.integers(0, 200, (16, 16)).astype(np.uint8)
        write_image(root / "images" / f"a{number}.tif", image_from_array(pixels, "YX"))
        write_labels(root / "masks" / f"a{number}.tif", np.roll(labels, number, 1))
    rows = [f"images/a{number}.tif,masks/a{max(number, 1)}.tif,{split}" for number, split in enumerate(splits)]
    (root / "manifest.csv").write_text("\n".join(["image,mask,split", *rows]) + "\n")
    return root


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (("train", "val", "train"), ("truth-across-splits", "error")),
        (("train", "train", "val"), ("truth-used-twice", "note")),
    ],
)
def test_a_mask_used_twice_is_reported(tmp_path: Path, splits: tuple[str, ...], expected: tuple[str, str]) -> None:
    found = [one for one in check_folder(shared_masks(tmp_path, *splits)) if one.code.startswith("truth-")]
    assert [(one.code, one.severity) for one in found] == [expected]
    assert found[0].file == "masks/a1.tif"
    assert "images/a0.tif" in found[0].problem


def test_a_mask_under_two_names_is_one_mask(tmp_path: Path) -> None:
    root = shared_masks(tmp_path, "train", "train", "train")
    (root / "manifest.csv").unlink()
    (root / "masks" / "a0.tif").unlink()
    (root / "masks" / "a0.tif").symlink_to(root / "masks" / "a1.tif")
    found = [one for one in check_folder(root) if one.code.startswith("truth-")]
    assert [one.severity for one in found] == ["error"]
