"""Synthetic nuclei: exact truth, the same for the same seed, worth training on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skimage.measure import label

from cytoray_analysis.errors import DatasetError, RequestError
from cytoray_analysis.images import read_image, read_labels
from cytoray_services.datasets import Dataset, hash_dataset, make_segmentation
from cytoray_services.datasets.synthetic.segmentation import draw_field


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_segmentation(tmp_path_factory.mktemp("made") / "cells", images=16, size=128, seed=1)


def truths(dataset: Dataset) -> list[np.ndarray]:
    return [read_labels(item.truth) for item in dataset.items if item.truth is not None]


def images(dataset: Dataset) -> list[np.ndarray]:
    return [read_image(item.image).read() for item in dataset.items]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(dataset: Dataset, tmp_path: Path) -> None:
    again = make_segmentation(tmp_path / "again", images=16, size=128, seed=1)
    other = make_segmentation(tmp_path / "other", images=16, size=128, seed=2)
    assert hash_dataset(again) == hash_dataset(dataset)
    assert hash_dataset(other) != hash_dataset(dataset)


@pytest.mark.slow
def test_an_image_does_not_depend_on_how_many_there_are(dataset: Dataset, tmp_path: Path) -> None:
    few = make_segmentation(tmp_path / "few", images=2, size=128, seed=1)
    assert few.items[1].image.read_bytes() == dataset.items[1].image.read_bytes()
    assert few.splits == ("train", "val")


def test_a_quarter_of_the_images_is_for_validation(dataset: Dataset) -> None:
    assert (len(dataset.split("train")), len(dataset.split("val"))) == (12, 4)


def test_every_object_is_one_piece_of_a_sensible_size(dataset: Dataset) -> None:
    for labels in truths(dataset):
        sizes = np.bincount(labels.ravel())[1:]
        assert sizes.size > 0
        assert sizes.min() >= 16
        assert sizes.max() < 128 * 128 / 4
        assert label(labels, connectivity=1).max() == labels.max()  # type: ignore[no-untyped-call]


def test_nuclei_are_brighter_than_their_surroundings(dataset: Dataset) -> None:
    for image, labels in zip(images(dataset), truths(dataset), strict=True):
        assert image[labels > 0].mean() > 1.2 * image[labels == 0].mean()


def test_some_nuclei_touch(dataset: Dataset) -> None:
    touching = 0
    for labels in truths(dataset):
        left, right = labels[:, :-1], labels[:, 1:]
        touching += int(np.count_nonzero((left != right) & (left > 0) & (right > 0)))
    assert touching > 100


def test_counts_and_exposures_differ(dataset: Dataset) -> None:
    counts = [int(labels.max()) for labels in truths(dataset)]
    assert max(counts) > 5 * min(counts)
    brightest = [np.percentile(image, 99.8) for image in images(dataset)]
    assert max(brightest) > 2 * min(brightest)


@pytest.mark.parametrize("size", [(40, 300), (333, 64), 32])
def test_images_can_have_any_size(size: int | tuple[int, int], tmp_path: Path) -> None:
    made = make_segmentation(tmp_path / "cells", images=2, size=size)
    expected = (size, size) if isinstance(size, int) else size
    assert [image.shape for image in images(made)] == [expected] * 2
    assert [labels.shape for labels in truths(made)] == [expected] * 2


def test_sixteen_bits_are_those_of_a_camera(tmp_path: Path) -> None:
    made = make_segmentation(tmp_path / "cells", images=4, size=64, dtype="uint16")
    for image in images(made):
        assert image.dtype == np.uint16
        assert 255 < image.max() <= 4095


def test_transmitted_light_shows_dark_nuclei(tmp_path: Path) -> None:
    made = make_segmentation(tmp_path / "cells", images=4, size=96, transmitted=1.0)
    for item, image, labels in zip(made.items, images(made), truths(made), strict=True):
        assert item.row["kind"] == "transmitted"
        assert image[labels > 0].mean() < image[labels == 0].mean()


def test_a_field_is_within_the_range_of_a_camera() -> None:
    image, labels = draw_field(np.random.default_rng(0), (100, 120))
    assert image.dtype == np.float32
    assert 0.0 <= image.min() < image.max() <= 1.0
    assert labels.shape == image.shape


def test_a_folder_that_holds_something_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"expected a new or empty folder, .* contains files"):
        make_segmentation(tmp_path, images=1, size=64)
    assert len(make_segmentation(tmp_path, images=1, size=64, overwrite=True)) == 1


def test_impossible_arguments_are_refused(tmp_path: Path) -> None:
    for count, size, seed in ((0, 64, 0), (1, 8, 0), (1, 64, -1)):
        with pytest.raises(RequestError, match="expected at least 1 image"):
            make_segmentation(tmp_path / "cells", images=count, size=size, seed=seed)
    with pytest.raises(RequestError, match="share 2"):
        make_segmentation(tmp_path / "cells", transmitted=2.0)
