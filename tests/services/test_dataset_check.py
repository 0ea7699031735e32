"""The check of a data set: every way to ruin a training is planted here and found."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cytoray_analysis.images import image_from_array, read_image, write_image
from cytoray_services.datasets import Finding, check_dataset, check_folder, make_segmentation, open_dataset


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
    ("float-mask", "error", "masks/0001.tif", lambda f: tifffile.imwrite(mask_of(f), np.ones((96, 96), np.float32))),
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
    (finding,) = check_folder(folder)
    assert (finding.code, finding.file) == ("duplicate-across-splits", "images/0003.tif")
    assert "images/copy.ome.tif" in finding.problem


def test_the_same_file_in_two_splits_is_found(folder: Path) -> None:
    edit(folder, "images/0003.tif,masks/0003.tif", "images/0001.tif,masks/0001.tif")
    assert [finding.code for finding in check_folder(folder)] == ["duplicate-across-splits"]


def test_the_same_pixels_in_one_split_are_no_error(folder: Path) -> None:
    edit(folder, "images/0002.tif,masks/0002.tif", "images/0001.tif,masks/0001.tif")
    assert check_folder(folder) == []


def test_grey_stands_in_for_colour_unless_told_otherwise(folder: Path) -> None:
    colour(image_of(folder), 3)
    dataset = open_dataset(folder)
    assert check_dataset(dataset) == []
    assert check_dataset(dataset, channels=3) == []
    assert codes(check_dataset(dataset, channels=3, grey_as_rgb=False)) == ["wrong-channels"] * 7
    assert codes(check_dataset(dataset, grey_as_rgb=False)) == ["wrong-channels"]
    assert codes(check_dataset(dataset, channels=1)) == ["wrong-channels"]


def test_a_class_that_one_split_lacks_is_found(folder: Path) -> None:
    rows = [f"images/{i:04d}.tif,{'RBC' if i != 2 else 'WBC'},{'val' if i == 3 else 'train'}" for i in range(4)]
    (folder / "manifest.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    (finding,) = check_folder(folder)
    assert finding.code == "class-missing"
    assert finding.problem == "class 'WBC' has no example in split 'val'"


def test_an_image_of_many_cells_in_a_manifest_of_classes_is_read_once(folder: Path) -> None:
    rows = [f"images/{i:04d}.tif,RBC,{'val' if i == 3 else 'train'}" for i in (0, 3)] * 50
    (folder / "manifest.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    seen: list[tuple[int, int]] = []
    assert check_dataset(open_dataset(folder), progress=lambda done, of: seen.append((done, of))) == []
    assert seen == [(1, 2), (2, 2)]


def test_errors_come_before_warnings(folder: Path) -> None:
    tifffile.imwrite(mask_of(folder, 0), np.zeros((96, 96), np.uint8))
    image_of(folder, 5).unlink()
    assert codes(check_folder(folder)) == ["missing-file", "empty-mask"]


@pytest.mark.parametrize("name", ["dsb2018", "bbbc039", "usiigaci_t98g", "bbbc050_3d", "gonuclear_ovules_3d"])
def test_real_data_sets_have_no_errors(name: str, shared_data: Path) -> None:
    assert [
        finding for finding in check_folder(shared_data / "segmentation" / name) if finding.severity == "error"
    ] == []


def test_a_real_data_set_of_classes_has_no_errors(shared_data: Path) -> None:
    assert [f for f in check_folder(shared_data / "classification" / "bccd") if f.severity == "error"] == []


def codes(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings]
