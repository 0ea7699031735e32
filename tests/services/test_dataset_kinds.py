"""Data sets of every kind of truth: found by their layout, joined, shared out, and read with their truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cytoray_analysis.cells import Cells
from cytoray_analysis.errors import DatasetError
from cytoray_analysis.images import image_from_array, read_image, write_image, write_labels
from cytoray_services.datasets import Dataset, Item, join_datasets, open_dataset, read_labelled, task_arguments

NOISE = np.random.default_rng(0)


def picture(path: Path, pixels: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = NOISE.integers(0, 200, (40, 50)).astype(np.uint8) if pixels is None else pixels
    write_image(path, image_from_array(pixels, "YX"))
    return path


def manifest(folder: Path, *lines: str) -> Path:
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def boxed(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.tif")
    return manifest(
        tmp_path,
        "path,label,split,xmin,ymin,xmax,ymax",
        "a.tif,red,train,5,2,15,12",
        "b.tif,red,val,0,0,10,10",
        "a.tif,white,train,20,22,30,32",
        "b.tif,white,val,8,8,18,20",
    )


def test_cells_of_one_image_are_read_together_with_their_boxes(boxed: Path) -> None:
    dataset = open_dataset(boxed)
    assert (dataset.truth_kind, len(dataset), len(dataset.images)) == ("class", 4, 2)
    arguments = task_arguments(dataset)
    assert arguments == {"classes": ["red", "white"], "counts": [1, 1]}
    labelled = read_labelled(dataset, dataset.images[0], arguments)
    assert isinstance(labelled.objects, Cells)
    np.testing.assert_array_equal(labelled.objects.boxes, [[[2, 5], [12, 15]], [[22, 20], [32, 30]]])
    np.testing.assert_array_equal(labelled.truth, [0, 1])


def test_a_class_that_the_model_never_saw_is_refused_with_its_name(boxed: Path) -> None:
    dataset = open_dataset(boxed)
    with pytest.raises(
        DatasetError, match="one of the classes red, got 'white', which the model was not trained on"
    ) as caught:
        read_labelled(dataset, dataset.images[0], {"classes": ["red"]})
    assert caught.value.hint


def test_a_box_without_numbers_is_refused_with_its_line(boxed: Path) -> None:
    manifest(boxed, "path,label,split,xmin,ymin,xmax,ymax", "a.tif,red,train,5,2,15,", "b.tif,red,val,0,0,10,10")
    with pytest.raises(DatasetError, match="line 2: expected numbers for the box"):
        open_dataset(boxed)


@pytest.mark.parametrize("given", [True, False])
def test_a_folder_per_class_is_a_data_set(tmp_path: Path, given: bool) -> None:
    for split in ("train", "val") if given else ("",):
        for kind in ("round", "long"):
            for number in range(6):
                picture(tmp_path / split / kind / f"{number}.tif")
    dataset = open_dataset(tmp_path)
    assert (dataset.truth_kind, dataset.splits) == ("class", ("train", "val"))
    assert {item.label for item in dataset.items} == {"round", "long"}
    labelled = read_labelled(dataset, dataset.images[0], task_arguments(dataset))
    assert labelled.objects is None


def test_targets_are_measured_on_the_training_split(tmp_path: Path) -> None:
    for name, value in (("a", 100), ("b", 7000)):
        picture(tmp_path / f"{name}.tif")
        pixels = (NOISE.random((40, 50)) * value).astype(np.uint16)
        picture(tmp_path / f"{name}-stain.tif", pixels)
    manifest(tmp_path, "input,target,split", "a.tif,a-stain.tif,train", "b.tif,b-stain.tif,val")
    dataset = open_dataset(tmp_path)
    arguments = task_arguments(dataset)
    assert arguments["offset"][0] == pytest.approx(50, abs=5)
    spread = 1 / arguments["scale"][0]
    assert spread == pytest.approx(100 / 12**0.5, rel=0.1)  # of a uniform distribution up to 100
    stain = read_image(tmp_path / "a-stain.tif").read()
    assert (arguments["offset"][0], spread) == pytest.approx((stain.mean(), stain.std()), rel=1e-4)
    truth = read_labelled(dataset, dataset.images[1], arguments).truth
    assert (truth.shape, truth.dtype) == ((1, 40, 50), np.float32)


def test_movies_in_the_layout_of_the_challenge_are_lineages(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "01" / f"t{number:03}.tif")
        (tmp_path / "01_GT" / "TRA").mkdir(parents=True, exist_ok=True)
        labels = np.zeros((40, 50), np.uint16)
        labels[5:15, 5 + number : 15 + number] = 1
        write_labels(tmp_path / "01_GT" / "TRA" / f"man_track{number:03}.tif", labels)
    (tmp_path / "01_GT" / "TRA" / "man_track.txt").write_text("1 0 2 0\n")
    dataset = open_dataset(tmp_path)
    assert (dataset.truth_kind, dataset.splits) == ("lineage", ("val",))
    labelled = read_labelled(dataset, dataset.images[0], {})
    assert labelled.image.axes == "TYX"
    assert labelled.objects.shape == (3, 40, 50)
    assert labelled.truth.track_id.tolist() == [1]


def test_a_task_is_not_given_truth_of_another_kind(boxed: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"expected a column for the mask in .*manifest\.csv; it has path, label, split"
    ):
        open_dataset(boxed, truth="labels")


def made_up(root: Path, classes: str, split: str = "train") -> Dataset:
    items = tuple(Item(root / f"{number}.tif", None, split, label=name) for number, name in enumerate(classes))
    return Dataset(root, items, "class")


def test_joined_sets_keep_their_splits_and_tell_where_an_item_comes_from(tmp_path: Path) -> None:
    joined = join_datasets([made_up(tmp_path / "one", "ab"), made_up(tmp_path / "two", "b", "val")])
    assert joined.root == tmp_path
    assert [(item.split, item.row["dataset"]) for item in joined.items] == [
        ("train", "one"),
        ("train", "one"),
        ("val", "two"),
    ]
    other = Dataset(tmp_path / "three", joined.items, "labels")
    with pytest.raises(DatasetError, match="truth of one kind"):
        join_datasets([joined, other])


def test_a_share_of_the_labels_has_every_class_and_grows_by_adding(tmp_path: Path) -> None:
    whole = join_datasets([made_up(tmp_path / "one", "a" * 100 + "b" * 10), made_up(tmp_path / "two", "ab", "val")])
    tenth, half = whole.share(0.1), whole.share(0.5)
    assert [item.label for item in tenth.split("train").items].count("a") == 10
    assert [item.label for item in tenth.split("train").items].count("b") == 1
    assert set(tenth.items) <= set(half.items)
    assert len(tenth.split("val")) == 2
    assert set(whole.share(0.1, seed=1).items) != set(tenth.items)


def test_all_names_every_split(boxed: Path) -> None:
    assert len(open_dataset(boxed).split("all")) == 4
