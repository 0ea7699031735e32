"""The check of a data set: every way to ruin a training is planted here and found."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cytoray_analysis.images import image_from_array, read_image, write_image
from cytoray_services.datasets import Finding, check_dataset, make_segmentation, open_dataset
from cytoray_services.datasets.check.labels import check_labels
from cytoray_services.datasets.synthetic.volumes import make_volumes
from folder_checks import check_folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "cells"
    make_segmentation(folder, images=8, size=96, seed=5)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "cells"))


def image_of(folder: Path, index: int = 1) -> Path:
    return folder / "images" / f"{index:04d}.tif"


def mask_of(folder: Path, index: int = 1) -> Path:
    return folder / "masks" / f"{index:04d}.tif"


def pixels(path: Path) -> np.ndarray:
    return read_image(path).read()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit(folder: Path, old: str, new: str) -> None:
    text = (folder / "manifest.csv").read_text()
    assert old in text
    (folder / "manifest.csv").write_text(text.replace(old, new))


def scatter(path: Path) -> None:
    labels = np.zeros((96, 96), np.uint16)
    labels[5:10, 5:10] = labels[80:85, 80:85] = 1
    tifffile.imwrite(path, labels)


def nan(path: Path) -> None:
    image = pixels(path).astype(np.float32)
    image[3, 3] = np.nan
    tifffile.imwrite(path, image)


def lose_masks(folder: Path) -> None:
    shutil.rmtree(folder / "masks")
    (folder / "manifest.csv").unlink()


def stack(path: Path) -> None:
    write_image(path, image_from_array(np.stack([pixels(path)] * 2), "ZYX"))


def stack_both(folder: Path) -> None:
    stack(image_of(folder))
    stack(mask_of(folder))


def colour(path: Path, count: int) -> None:
    write_image(path, image_from_array(np.stack([pixels(path)] * count), "CYX"))


PLANTS: list[tuple[str, str, str, Callable[[Path], object]]] = [
    ("unreadable", "error", "images/0001.tif", lambda f: image_of(f).write_text("no pixels")),
    ("unreadable", "error", "masks/0001.tif", lambda f: mask_of(f).write_bytes(b"II*\0" + bytes(60))),
    ("unreadable", "error", "images/0001.tif", lambda f: image_of(f).write_bytes(b"")),
    ("truncated", "error", "images/0001.tif", lambda f: cut(image_of(f))),
    ("truncated", "error", "masks/0001.tif", lambda f: cut(mask_of(f))),
    ("missing-file", "error", "images/0001.tif", lambda f: image_of(f).unlink()),
    ("missing-file", "error", "masks/0001.tif", lambda f: mask_of(f).unlink()),
    ("missing-file", "error", "images/0001.tif", lambda f: edit(f, "masks/0001.tif", "")),
    ("size-mismatch", "error", "masks/0001.tif", lambda f: tifffile.imwrite(mask_of(f), np.ones((96, 95), np.uint8))),
    ("wrong-axes", "error", "images/0001.tif", stack_both),
    ("wrong-axes", "error", "masks/0001.tif", lambda f: colour(mask_of(f), 2)),
    ("wrong-channels", "error", "images/0001.tif", lambda f: colour(image_of(f), 2)),
    ("not-finite", "error", "images/0001.tif", lambda f: nan(image_of(f))),
    ("float-mask", "error", "masks/0001.tif", lambda f: tifffile.imwrite(mask_of(f), np.eye(96, dtype=np.float32) / 2)),
    ("negative-mask", "error", "masks/0001.tif", lambda f: tifffile.imwrite(mask_of(f), -np.eye(96, dtype=np.int16))),
    ("empty-mask", "warning", "masks/0001.tif", lambda f: tifffile.imwrite(mask_of(f), np.zeros((96, 96), np.uint8))),
    ("fragmented-ids", "warning", "masks/0001.tif", lambda f: scatter(mask_of(f))),
    (
        "constant-image",
        "warning",
        "images/0001.tif",
        lambda f: tifffile.imwrite(image_of(f), np.full((96, 96), 7, np.uint8)),
    ),
    ("split-missing", "error", ".", lambda f: edit(f, ",val,", ",train,")),
    ("missing-column", "error", ".", lambda f: edit(f, "image,mask,", "picture,mask,")),
    ("missing-column", "error", ".", lose_masks),
    ("layout", "error", ".", lambda f: (f / "manifest.csv").write_text("image,mask,split\n")),
    ("no-split-column", "warning", ".", lambda f: edit(f, ",split,", ",part,")),
]


def test_a_good_data_set_has_no_findings(made: Path) -> None:
    assert check_folder(made) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "severity", "file", "plant"), PLANTS, ids=[f"{code} {file}" for code, _, file, _ in PLANTS]
)
def test_what_is_planted_is_found(
    code: str, severity: str, file: str, plant: Callable[[Path], object], folder: Path
) -> None:
    plant(folder)
    (finding,) = check_folder(folder)
    assert (finding.code, finding.severity, finding.file) == (code, severity, file)
    assert finding.problem
    assert finding.remedy


def test_the_same_pixels_in_two_splits_are_found_in_any_format(folder: Path) -> None:
    write_image(folder / "images" / "copy.ome.tif", image_from_array(pixels(image_of(folder, 3)), "YX"))
    edit(folder, "images/0001.tif", "images/copy.ome.tif")
    (finding,) = (finding for finding in check_folder(folder) if finding.severity == "error")
    assert (finding.code, finding.file) == ("duplicate-across-splits", "images/0003.tif")
    assert "images/copy.ome.tif" in finding.problem


def test_the_same_file_in_two_splits_is_found(folder: Path) -> None:
    edit(folder, "images/0003.tif,masks/0003.tif", "images/0001.tif,masks/0001.tif")
    assert [finding.code for finding in check_folder(folder)] == ["duplicate-across-splits"]


def test_a_row_that_is_there_twice_in_one_split_is_worth_a_note(folder: Path) -> None:
    edit(folder, "images/0002.tif,masks/0002.tif", "images/0001.tif,masks/0001.tif")
    (finding,) = check_folder(folder)
    assert (finding.code, finding.severity, finding.file) == ("listed-twice", "note", "masks/0001.tif")


def test_what_is_to_be_done_about_a_missing_file_can_be_done_without_a_manifest(folder: Path) -> None:
    (folder / "manifest.csv").unlink()
    (folder / "masks" / "0001.tif").unlink()
    missing = [finding for finding in check_folder(folder) if finding.code == "missing-file"]
    assert [finding.file for finding in missing] == ["masks/0001.tif"]
    assert "or the image with its name" in missing[0].remedy


def test_files_of_operating_systems_are_no_images(folder: Path) -> None:
    (folder / "manifest.csv").unlink()
    before = check_folder(folder)
    for name in ("images/Thumbs.db", "masks/desktop.ini", "masks/.DS_Store", "images/._0001.tif"):
        (folder / name).write_bytes(b"x")
    assert check_folder(folder) == before


@pytest.mark.slow
def test_grey_stands_in_for_colour_unless_chosen_otherwise(folder: Path) -> None:
    colour(image_of(folder), 3)
    dataset = open_dataset(folder)
    assert check_dataset(dataset) == []
    assert check_dataset(dataset, channels=3) == []
    assert codes(check_dataset(dataset, channels=3, grey_as_rgb=False)) == ["wrong-channels"] * 7
    assert codes(check_dataset(dataset, grey_as_rgb=False)) == ["wrong-channels"]
    assert codes(check_dataset(dataset, channels=1)) == ["wrong-channels"]


@pytest.mark.parametrize("largest", [65_536, 2**31, 2**40, 2**53])
def test_large_numbers_are_no_finding_and_too_many_objects_are_to_be_cut(largest: int) -> None:
    numbers = np.zeros((96, 96), np.int64)
    numbers[0, :3] = largest
    assert list(check_labels(numbers, "mask")) == []
    (finding,) = check_labels(np.arange(300 * 300).reshape(300, 300), "mask")
    assert finding.code == "too-many-ids"
    assert "smaller" in finding.remedy


def test_planes_for_a_model_of_volumes_are_one_error_that_says_what_would_fit(folder: Path) -> None:
    (finding,) = check_folder(folder, axes="ZYX")
    assert (finding.code, finding.file) == ("wrong-axes", ".")
    assert finding.problem == "the model expects volumes (3D) with axes ZYX, these images are planes (2D) with axes YX"
    assert "recipe for planes" in finding.remedy
    assert check_folder(folder, axes="YX") == []


def test_volumes_for_a_model_of_planes_are_one_error_that_says_what_would_fit(tmp_path: Path) -> None:
    make_volumes(tmp_path / "volumes", images=2, depth=8, size=32)
    (finding,) = check_folder(tmp_path / "volumes", axes="YX")
    assert (finding.code, finding.file) == ("wrong-axes", ".")
    assert "recipe for volumes" in finding.remedy
    assert check_folder(tmp_path / "volumes", axes="ZYX") == check_folder(tmp_path / "volumes") == []


def test_a_volume_among_planes_is_found_by_its_name(folder: Path) -> None:
    stack_both(folder)
    (finding,) = check_folder(folder, axes="YX")
    assert (finding.code, finding.file) == ("wrong-axes", "images/0001.tif")


@pytest.mark.slow
def test_a_mask_of_a_volume_is_checked_as_one_of_a_plane(tmp_path: Path) -> None:
    dataset = make_volumes(tmp_path / "volumes", images=4, depth=10, size=48)
    truth = dataset.items[1].truth
    assert truth is not None
    write_image(truth, image_from_array(np.zeros((10, 48, 47), np.uint16), "ZYX"))
    (finding,) = check_dataset(dataset)
    assert (finding.code, finding.problem) == (
        "size-mismatch",
        "its size is 10 × 48 × 47, that of its image images/0001.ome.tif 10 × 48 × 48",
    )
    scattered = np.zeros((10, 48, 48), np.uint16)
    scattered[0:2, 0:5, 0:5] = scattered[8:10, 40:45, 40:45] = 1
    write_image(truth, image_from_array(scattered, "ZYX"))
    assert codes(check_dataset(dataset)) == ["fragmented-ids"]


def test_errors_come_before_warnings(folder: Path) -> None:
    tifffile.imwrite(mask_of(folder, 0), np.zeros((96, 96), np.uint8))
    image_of(folder, 5).unlink()
    assert codes(check_folder(folder)) == ["missing-file", "empty-mask"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param("dsb2018", marks=pytest.mark.long), "bbbc039", "usiigaci_t98g", "bbbc050_3d", "gonuclear_ovules_3d"],
)
def test_real_data_sets_raise_nothing(name: str, shared_data: Path) -> None:
    assert set(codes(check_folder(shared_data / "segmentation" / name))) <= {"no-test-split"}


def codes(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings]
