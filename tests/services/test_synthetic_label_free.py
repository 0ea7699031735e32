"""Synthetic pairs of transmitted light and fluorescence: registered, reproducible, worth learning from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cytoray_analysis.errors import DatasetError, RequestError
from cytoray_analysis.images import read_image
from cytoray_analysis.label_free_baseline import label_free_baseline
from cytoray_analysis.registration import estimate_shift
from cytoray_services.datasets import Dataset, hash_dataset
from cytoray_services.datasets.synthetic.label_free import make_label_free


def pairs(dataset: Dataset) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(read_image(item.image).read(), read_image(item.truth).read()) for item in dataset.items if item.truth]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_label_free(tmp_path_factory.mktemp("made") / "pairs", images=8, seed=1)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(dataset: Dataset, tmp_path: Path) -> None:
    assert hash_dataset(make_label_free(tmp_path / "again", images=8, seed=1)) == hash_dataset(dataset)
    assert hash_dataset(make_label_free(tmp_path / "other", images=8, seed=2)) != hash_dataset(dataset)


def test_a_pair_does_not_depend_on_how_many_there_are(dataset: Dataset, tmp_path: Path) -> None:
    few = make_label_free(tmp_path / "few", images=2, seed=1)
    assert few.items[1].image.read_bytes() == dataset.items[1].image.read_bytes()
    assert few.splits == ("train", "val")


def test_it_is_a_data_set_of_images_with_images_as_truth(dataset: Dataset) -> None:
    assert dataset.truth_kind == "image"
    assert (len(dataset.split("train")), len(dataset.split("val"))) == (6, 2)
    for light, stain in pairs(dataset):
        assert light.shape == stain.shape == (128, 128)
        assert light.dtype == stain.dtype == np.uint16


@pytest.mark.parametrize(
    ("arguments", "light", "stain"),
    [
        ({"planes": 5}, (5, 40, 48), (40, 48)),
        ({"planes": 4, "volume": True}, (4, 40, 48), (4, 40, 48)),
        ({"channels": 2}, (40, 48), (2, 40, 48)),
        ({"planes": 3, "volume": True, "channels": 2}, (3, 40, 48), (2, 3, 40, 48)),
    ],
)
def test_stacks_volumes_and_channels(
    arguments: dict[str, int], light: tuple[int, ...], stain: tuple[int, ...], tmp_path: Path
) -> None:
    made = make_label_free(tmp_path / "made", images=1, size=(40, 48), **arguments)  # type: ignore[arg-type]
    assert [image.shape for image in pairs(made)[0]] == [light, stain]
    target = made.items[0].truth
    assert target is not None
    assert read_image(target).size("C") == arguments.get("channels", 1)


def test_input_and_target_lie_on_each_other(dataset: Dataset) -> None:
    for light, stain in pairs(dataset):
        found = estimate_shift(light, stain)
        assert found.trusted
        assert not found.misplaced


@pytest.mark.long
def test_the_stain_is_where_phase_contrast_is_dark(dataset: Dataset) -> None:
    (best,) = label_free_baseline([(light[np.newaxis], stain[np.newaxis]) for light, stain in pairs(dataset)])
    assert best.sign == -1
    for light, stain in pairs(dataset):
        bright = stain > np.percentile(stain, 95)
        assert light[bright].mean() < light[~bright].mean()


def test_planes_above_and_below_the_focus_have_opposite_contrast(tmp_path: Path) -> None:
    made = make_label_free(tmp_path / "stack", images=1, planes=5)
    light = pairs(made)[0][0].astype(float)
    above, below = light[0] - light[2], light[4] - light[2]
    assert np.corrcoef(above.ravel(), below.ravel())[0, 1] < -0.3


def test_a_folder_that_holds_something_is_not_overwritten(dataset: Dataset) -> None:
    with pytest.raises(DatasetError, match=r"expected a new or empty folder, .* contains files"):
        make_label_free(dataset.root)
    again = make_label_free(dataset.root, images=8, seed=1, overwrite=True)
    assert hash_dataset(again) == hash_dataset(dataset)


@pytest.mark.parametrize("wrong", [{"images": 0}, {"size": 16}, {"planes": 0}, {"channels": 3}, {"volume": True}])
def test_arguments_out_of_range_are_refused(wrong: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(RequestError):
        make_label_free(tmp_path / "made", **wrong)  # type: ignore[arg-type]
