"""Synthetic volumes of nuclei: exact truth, the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skimage.measure import label

from cytoray_analysis.errors import DatasetError, RequestError
from cytoray_analysis.images import read_image, read_labels
from cytoray_services.datasets import Dataset, hash_dataset
from cytoray_services.datasets.synthetic.volumes import PIXEL_SIZE, make_volumes


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_volumes(tmp_path_factory.mktemp("made") / "cells", images=4, depth=20, size=80, seed=1)


def truths(dataset: Dataset) -> list[np.ndarray]:
    return [read_labels(item.truth) for item in dataset.items if item.truth is not None]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(dataset: Dataset, tmp_path: Path) -> None:
    again = make_volumes(tmp_path / "again", images=4, depth=20, size=80, seed=1)
    other = make_volumes(tmp_path / "other", images=4, depth=20, size=80, seed=2)
    assert hash_dataset(again) == hash_dataset(dataset)
    assert hash_dataset(other) != hash_dataset(dataset)


@pytest.mark.slow
def test_a_volume_does_not_depend_on_how_many_there_are(dataset: Dataset, tmp_path: Path) -> None:
    few = make_volumes(tmp_path / "few", images=2, depth=20, size=80, seed=1)
    assert few.items[1].image.read_bytes() == dataset.items[1].image.read_bytes()
    assert few.splits == ("train", "val")


@pytest.mark.slow
def test_axes_and_pixel_sizes_are_in_the_files(dataset: Dataset) -> None:
    for item in dataset.items:
        assert item.truth is not None
        for path in (item.image, item.truth):
            image = read_image(path)
            assert (image.axes, image.shape) == ("ZYX", (20, 80, 80))
            assert image.pixel_size == PIXEL_SIZE


def test_every_object_is_one_piece_of_a_sensible_size(dataset: Dataset) -> None:
    for item, labels in zip(dataset.items, truths(dataset), strict=True):
        sizes = np.bincount(labels.ravel())[1:]
        assert len(sizes) == int(item.row["n_objects"]) > 0
        assert sizes.min() >= 30
        assert sizes.max() < 2500
        pieces = [label(labels == number).max() for number in range(1, labels.max() + 1)]  # type: ignore[no-untyped-call]
        assert set(pieces) == {1}


def test_nuclei_are_brighter_than_their_surroundings_in_every_plane(dataset: Dataset) -> None:
    for item, labels in zip(dataset.items, truths(dataset), strict=True):
        image = read_image(item.image).read().astype(float)
        assert image[labels > 0].mean() > 2 * image[labels == 0].mean()


def test_sixteen_bits_are_those_of_a_camera_of_twelve(tmp_path: Path) -> None:
    made = make_volumes(tmp_path / "cells", images=1, depth=8, size=32, dtype="uint16")
    pixels = read_image(made.items[0].image).read()
    assert pixels.dtype == np.uint16
    assert 255 < pixels.max() <= 4095


@pytest.mark.parametrize("arguments", [{"images": 0}, {"depth": 7}, {"size": 31}, {"size": (64, 16)}, {"seed": -1}])
def test_arguments_out_of_range_are_refused(arguments: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="expected at least 1 volume"):
        make_volumes(tmp_path / "cells", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "cells").exists()


def test_a_folder_that_holds_something_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"expected a new or empty folder, .* contains files"):
        make_volumes(tmp_path, images=1, depth=8, size=32)
