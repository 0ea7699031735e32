"""Which masks of a folder are those of which input."""

from __future__ import annotations

from pathlib import Path

import pytest

from cytoray_analysis.errors import MissingFileError, RequestError
from cytoray_serving.predict.given_objects import GivenObjects


def touch(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return paths


def found(masks: Path, inputs: list[Path]) -> list[str | None]:
    """Return the masks of each input below their folder; None where they are refused as ambiguous."""
    objects = GivenObjects(masks=masks).of(inputs)
    names: list[str | None] = []
    for path in inputs:
        try:
            mask = objects.masks_of(path)
        except RequestError as error:
            names.append(None if "ambiguous" in error.message else str(error))
        else:
            names.append(None if mask is None else mask.relative_to(masks).as_posix())
    return names


def test_masks_lie_as_their_images_do(tmp_path: Path) -> None:
    inputs = touch(tmp_path / "images", "A/img.tif", "B/img.tif", "c.tif")
    touch(tmp_path / "masks", "A/img.png", "B/img.png", "c.tif", "notes.txt")
    assert found(tmp_path / "masks", inputs) == ["A/img.png", "B/img.png", "c.tif"]


def test_a_mask_that_two_inputs_may_have_is_refused(tmp_path: Path) -> None:
    inputs = touch(tmp_path / "images", "A/img.tif", "B/img.tif")
    touch(tmp_path / "masks", "img.tif")
    assert found(tmp_path / "masks", inputs) == [None, None]
    assert found(tmp_path / "masks", inputs[:1]) == ["img.tif"]


def test_the_full_name_goes_before_the_stem(tmp_path: Path) -> None:
    inputs = touch(tmp_path / "images", "a.tif", "b.tif")
    touch(tmp_path / "masks", "a.tif", "a.png", "b_mask.png")
    assert found(tmp_path / "masks", inputs) == ["a.tif", "b_mask.png"]


def test_two_masks_of_one_stem_are_refused(tmp_path: Path) -> None:
    inputs = touch(tmp_path / "images", "a.tif")
    touch(tmp_path / "masks", "a.png", "a.tiff")
    assert found(tmp_path / "masks", inputs) == [None]


def test_dots_are_part_of_a_name(tmp_path: Path) -> None:
    inputs = touch(tmp_path / "images", "plate1.A0.tif", "plate1.A1.tif")
    touch(tmp_path / "masks", "plate1.A0.png", "plate1.A1.png")
    assert found(tmp_path / "masks", inputs) == ["plate1.A0.png", "plate1.A1.png"]


def test_a_mask_of_another_folder_is_not_taken(tmp_path: Path) -> None:
    (path,) = touch(tmp_path / "images", "A/img.tif")
    touch(tmp_path / "masks", "B/img.tif")
    with pytest.raises(MissingFileError, match="no masks named img"):
        GivenObjects(masks=tmp_path / "masks").of([path]).masks_of(path)


def test_all_that_is_read_is_known(tmp_path: Path) -> None:
    inputs = touch(tmp_path / "images", "a.tif", "b.tif")
    masks = touch(tmp_path / "masks", "a.tif", "b.tif", "c.tif")
    assert GivenObjects(masks=tmp_path / "masks").of(inputs).files() == masks[:2]
    assert GivenObjects(masks=masks[0]).of(inputs[:1]).files() == masks[:1]
