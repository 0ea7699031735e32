"""Masks that teach nothing, or something wrong, are found before a training starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cytoray_analysis.bundle import TaskChoice
from cytoray_services.datasets import open_dataset
from cytoray_services.datasets.check import Finding, check_dataset
from folder_checks import check_folder

Change = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def picture(seed: int, side: int = 96) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    image, mask = chance.normal(20, 3, (side, side)), np.zeros((side, side), np.uint16)
    for number in range(1, 7):
        y, x, r = chance.uniform(9, side - 9), chance.uniform(9, side - 9), chance.uniform(4, 7)
        disc = ((rows - y) ** 2 + (columns - x) ** 2 <= r**2) & (mask == 0)
        mask[disc], image[disc] = number, image[disc] + 120
    return image.clip(0, 255).astype(np.uint8), mask


def write_set(folder: Path, change: Change = lambda image, mask, number: (image, mask), images: int = 6) -> Path:
    rows = ["image,mask,split"]
    for number in range(images):
        image, mask = change(*picture(number), number)
        for kind, pixels in (("images", image), ("masks", mask)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / kind / f"{number}.tif", pixels)
        rows.append(f"images/{number}.tif,masks/{number}.tif,{'val' if number % 3 == 2 else 'train'}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


def found(folder: Path, code: str, **asked: Any) -> list[Finding]:
    return [one for one in check_dataset(open_dataset(folder), **asked) if one.code == code]


WRONG: dict[str, Change] = {
    "mirrored along X": lambda image, mask, number: (image, mask[:, ::-1]),
    "mirrored along Y": lambda image, mask, number: (image, mask[::-1]),
    "mirrored along Y and X": lambda image, mask, number: (image, mask[::-1, ::-1]),
    "transposed": lambda image, mask, number: (image, mask.T),
    "same distance": lambda image, mask, number: (image, np.roll(mask, (6, -9), (0, 1))),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", WRONG)
def test_masks_that_do_not_lie_on_their_images_are_an_error(what: str, tmp_path: Path) -> None:
    (one,) = found(write_set(tmp_path, WRONG[what]), "misplaced-masks")
    assert (one.severity, one.file) == ("error", ".")
    assert what in one.problem


def test_one_mask_that_does_not_is_named(tmp_path: Path) -> None:
    folder = write_set(tmp_path, lambda image, mask, number: (image, mask[::-1] if number == 3 else mask))
    (one,) = found(folder, "misplaced-masks")
    assert (one.severity, one.file) == ("warning", "masks/3.tif")


def of_others(order: list[int]) -> Change:
    """Give each image the mask of another one."""
    return lambda image, mask, number: (image, picture(order[number])[1])


@pytest.mark.parametrize("images", [6, 12])
def test_shuffled_masks_are_a_warning_of_the_set(images: int, tmp_path: Path) -> None:
    order = [*range(1, images), 0]
    (one,) = found(write_set(tmp_path, of_others(order), images), "exchanged-masks")
    assert (one.severity, one.file) == ("warning", ".")
    assert f"of {images} masks fit other images" in one.problem


def test_two_masks_that_were_exchanged_are_named_with_the_images_that_they_fit(tmp_path: Path) -> None:
    one, other = found(write_set(tmp_path, of_others([0, 1, 4, 3, 2, 5])), "exchanged-masks")
    assert (one.file, other.file) == ("masks/2.tif", "masks/4.tif")
    assert "it fits images/4.tif" in one.problem
    assert "it fits images/2.tif" in other.problem


def test_masks_of_another_set_are_a_warning(tmp_path: Path) -> None:
    (one,) = found(write_set(tmp_path, of_others(list(range(50, 70))), 20), "exchanged-masks")
    assert one.file == "."
    assert "20 of 20 masks fit their images no better than masks of other images do" in one.problem


def test_masks_that_are_alike_are_not_called_exchanged(tmp_path: Path) -> None:
    mask = picture(0)[1]
    assert not found(write_set(tmp_path, lambda image, _, number: (image, mask), 12), "exchanged-masks")


@pytest.mark.parametrize("dark", [False, True])
def test_masks_that_do_give_no_finding(dark: bool, tmp_path: Path) -> None:
    folder = write_set(tmp_path, lambda image, mask, number: (255 - image if dark else image, mask))
    assert check_folder(folder) == []


@pytest.mark.parametrize("change", [lambda v: v.astype(np.uint16) * 257, lambda v: v.astype(np.float32) / 255])
def test_one_picture_in_two_splits_is_found_whatever_its_bit_depth(
    change: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    first = picture(0)
    folder = write_set(
        tmp_path, lambda image, mask, number: (change(first[0]), first[1]) if number == 2 else (image, mask)
    )
    (one,) = found(folder, "copy-across-splits")
    assert (one.severity, one.file) == ("error", "images/2.tif")
    assert "images/0.tif" in one.problem


@pytest.mark.parametrize("objects", [1, 2])
def test_a_background_that_is_not_0_is_a_warning(objects: int, tmp_path: Path) -> None:
    folder = write_set(tmp_path, lambda image, mask, number: (image, mask + 1 if objects == 2 else np.ones_like(mask)))
    warnings = found(folder, "background-not-zero")
    assert len(warnings) == 6
    assert {one.severity for one in warnings} == {"warning"}


def test_whole_real_numbers_and_huge_ones_are_masks(tmp_path: Path) -> None:
    assert check_folder(write_set(tmp_path / "a", lambda image, mask, number: (image, mask.astype(np.float32)))) == []
    huge: Change = lambda image, mask, number: (image, mask.astype(np.uint64) * 2**50)  # noqa: E731
    assert check_folder(write_set(tmp_path / "b", huge)) == []


@pytest.mark.slow
def test_only_too_many_objects_are_refused(tmp_path: Path) -> None:
    folder = write_set(tmp_path)
    image = np.random.default_rng(0).integers(0, 255, (300, 300), np.uint8)
    tifffile.imwrite(folder / "images" / "1.tif", image)
    tifffile.imwrite(folder / "masks" / "1.tif", np.arange(1, 90_001, dtype=np.uint32).reshape(300, 300))
    (one,) = found(folder, "too-many-ids")
    assert (one.severity, one.file) == ("error", "masks/1.tif")


def test_jpeg_masks_are_an_error(tmp_path: Path) -> None:
    folder = write_set(tmp_path)
    tifffile.imwrite(folder / "masks" / "1.tif", picture(1)[1].astype(np.uint8) * 20, compression="jpeg")
    (one,) = found(folder, "lossy-mask")
    assert (one.severity, one.file) == ("error", "masks/1.tif")
    assert "JPEG" in one.problem


def semantic(**arguments: Any) -> TaskChoice:
    return TaskChoice(name="semantic_segmentation", arguments={"classes": ["background", "nucleus"], **arguments})


def test_0_and_255_are_no_classes_until_a_recipe_says_so(tmp_path: Path) -> None:
    folder = write_set(tmp_path, lambda image, mask, number: (image, ((mask > 0) * 255).astype(np.uint8)))
    (one,) = found(folder, "class-without-pixels", task=semantic())
    assert one.severity == "error"
    assert "{0: background, 255: nucleus}" in one.remedy
    assert check_dataset(open_dataset(folder), task=semantic(values={0: "background", 255: "nucleus"})) == []


@pytest.mark.parametrize("arguments", [{}, {"values": {0: "background", 1: "nucleus"}}])
def test_a_number_that_is_no_class_is_an_error(arguments: dict[str, Any], tmp_path: Path) -> None:
    folder = write_set(tmp_path, lambda image, mask, number: (image, (mask > 0) + np.uint8(number == 1)))
    errors = found(folder, "unknown-class", task=semantic(**arguments))
    assert [one.file for one in errors] == ["masks/1.tif"]


def test_a_class_that_a_split_lacks_is_a_warning(tmp_path: Path) -> None:
    folder = write_set(tmp_path, lambda image, mask, number: (image, ((mask > 0) & (number % 3 != 2)).astype(np.uint8)))
    (one,) = found(folder, "class-without-pixels", task=semantic())
    assert one.severity == "warning"
    assert "'nucleus' has no pixel in split 'val'" in one.problem


def test_images_of_one_bit_are_looked_at_like_others(tmp_path: Path) -> None:
    folder = write_set(tmp_path, lambda image, mask, number: (image > image.mean(), mask))
    assert check_folder(folder) == []
