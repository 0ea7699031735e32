"""Splits that are drawn because none is given: by the hash of a group, and only by it."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.errors import DatasetError
from cytoray_analysis.images import image_from_array, write_image
from cytoray_services.datasets import DataSource, join_datasets, open_dataset
from cytoray_services.datasets.drawn_split import FEWEST, TEST_BEGINS, TRAINING_SHARE, drawn_splits
from folder_checks import check_folder

DIGESTS = st.lists(st.text("0123456789abcdef", min_size=12, max_size=12), min_size=1, max_size=30, unique=True)


def place(digest: str) -> float:
    return int(digest[:8], 16) / 2**32


@given(DIGESTS, DIGESTS)
def test_what_trained_never_validates_when_others_are_added(first: list[str], more: list[str]) -> None:
    before, after = drawn_splits(first), drawn_splits([*first, *more])
    assert all(after[one] == "train" for one in first if before[one] == "train")
    if {place(one) < TRAINING_SHARE for one in first} == {True, False}:
        assert all((after[one] == "train") == (before[one] == "train") for one in first)
    assert all(after[one] == "test" for one in first if before[one] == "test")


@given(DIGESTS)
def test_only_an_empty_val_is_lent_one_group(digests: list[str]) -> None:
    splits = drawn_splits(digests)
    moved = [one for one in digests if (splits[one] == "train") != (place(one) < TRAINING_SHARE)]
    assert len(moved) <= 1
    if moved:
        assert all(place(one) < TRAINING_SHARE for one in digests)
    assert "val" in splits.values()


def test_a_tenth_validates_and_a_tenth_tests_where_there_are_groups_enough() -> None:
    random = np.random.default_rng(0)
    digests = [f"{number:08x}" for number in random.integers(0, 2**32, 20_000)]
    splits = list(drawn_splits(digests).values())
    assert splits.count("val") / len(splits) == pytest.approx(0.1, abs=0.01)
    assert splits.count("test") / len(splits) == pytest.approx(0.1, abs=0.01)
    few = drawn_splits(digests[:20])
    assert set(few.values()) == {"train", "val"}


@given(DIGESTS.filter(lambda digests: len(digests) > 1))
def test_a_drawn_test_is_never_too_small_to_tell_anything(digests: list[str]) -> None:
    test = [one for one, split in drawn_splits(digests).items() if split == "test"]
    assert not test or len(test) >= FEWEST
    assert all(place(one) >= TEST_BEGINS for one in test)


def write_given(root: Path, rows: list[dict[str, str]]) -> Path:
    for row in rows:
        (root / row["image"]).parent.mkdir(parents=True, exist_ok=True)
        (root / row["image"]).write_bytes(row["image"].encode())
        (root / row["mask"]).write_bytes(row["mask"].encode())
    with (root / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root


def given_rows(count: int, **more: str) -> list[dict[str, str]]:
    return [
        {"image": f"{n}.tif", "mask": f"{n}.png", "split": "val" if n % 10 == 0 else "train"} | more
        for n in range(count)
    ]


def test_given_splits_without_a_test_get_one_from_train(tmp_path: Path) -> None:
    before = {row["image"]: row["split"] for row in given_rows(150)}
    dataset = open_dataset(write_given(tmp_path / "set", given_rows(150)))
    assert dataset.derived_test
    after = {item.image.name: item.split for item in dataset.items}
    moved = [name for name in before if after[name] != before[name]]
    assert FEWEST <= len(moved) <= 30
    assert all((before[name], after[name]) == ("train", "test") for name in moved)
    assert not open_dataset(tmp_path / "set", drawing_test=False).derived_test
    (finding,) = [one for one in check_folder(tmp_path / "set") if one.code == "no-test-split"]
    assert f"{len(moved)} images of train were drawn" in finding.problem
    few = open_dataset(write_given(tmp_path / "few", given_rows(20)))
    assert few.splits == ("train", "val")
    own = given_rows(150)
    own[1]["split"] = "test"
    assert len(open_dataset(write_given(tmp_path / "own", own)).split("test")) == 1


def test_validation_images_are_drawn_from_train_and_the_given_val_is_left_alone(tmp_path: Path) -> None:
    rows = [row | {"slide": str(n // 5)} for n, row in enumerate(given_rows(100))]
    root = write_given(tmp_path / "set", rows)
    source = DataSource((root,), "labels", groups=("slide",), drawing_validation=True)
    dataset = DataSource.from_record(json.loads(json.dumps(source.to_record()))).open()
    given = {row["image"] for row in rows if row["split"] == "val"}
    assert dataset.splits == ("train", "val")
    assert len(dataset) == 90
    assert not given & {item.image.name for item in dataset.items}
    slides = [{item.group for item in dataset.items if item.split == split} for split in dataset.splits]
    assert not slides[0] & slides[1]


def test_a_drawn_test_shares_neither_group_nor_truth_with_what_trains(tmp_path: Path) -> None:
    rows = given_rows(400)
    for number, row in enumerate(rows):
        row |= {"group": f"slide{number // 4}", "mask": f"{number // 2}.png"}
        row["split"] = "val" if number // 4 % 10 == 0 else "train"
    rows[5]["split"] = "val"  # slide1 is torn
    dataset = open_dataset(write_given(tmp_path, rows))
    for value in ("group", "truth"):
        test = {getattr(item, value) for item in dataset.split("test").items}
        others = {getattr(item, value) for item in dataset.items if item.split != "test"}
        assert not test & others


def write_set(root: Path, groups: Mapping[str, int], *, start: int = 0, column: str = "group") -> Path:
    rows = []
    for group, count in groups.items():
        for number in range(count):
            name = f"{group}_{number + start}.tif"
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(name.encode())
            rows.append({"image": name, "mask": name, column: group})
    with (root / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "mask", column])
        writer.writeheader()
        writer.writerows(rows)
    return root


def splits_of(root: Path, **columns: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for item in open_dataset(root, columns=columns or None).items:
        found.setdefault(item.row.get("group", item.row.get("well", "")), set()).add(item.split)
    return found


def test_a_group_stays_in_one_split_and_keeps_it_when_others_are_added(tmp_path: Path) -> None:
    groups = {f"slide{number}": 5 for number in range(20)}
    before = splits_of(write_set(tmp_path / "a", groups))
    assert all(len(names) == 1 for names in before.values())
    assert {name for names in before.values() for name in names} == {"train", "val"}
    more = splits_of(write_set(tmp_path / "b", {**groups, "other": 3, "another": 9}, start=100))
    assert {group: more[group] for group in before} == before


def test_a_column_of_another_name_can_be_the_group(tmp_path: Path) -> None:
    wells = {f"B{number}": 4 for number in range(12)}
    alone = splits_of(write_set(tmp_path / "a", wells, column="well"))
    assert any(len(names) == 2 for names in alone.values())
    mapped = splits_of(tmp_path / "a", group="well")
    assert all(len(names) == 1 for names in mapped.values())
    assert mapped == splits_of(write_set(tmp_path / "b", wells))


def test_an_image_keeps_its_split_when_others_are_added(tmp_path: Path) -> None:
    def folder(name: str, count: int) -> Path:
        for part in ("images", "masks"):
            (tmp_path / name / part).mkdir(parents=True)
            for number in range(count):
                (tmp_path / name / part / f"{number}.tif").write_bytes(f"{number}".encode())
        return tmp_path / name

    few, many = open_dataset(folder("few", 20)), open_dataset(folder("many", 40))
    assert not few.lent
    before, after = ({item.image.name: item.split for item in one.items} for one in (few, many))
    assert set(before.values()) == {"train", "val"}
    assert {name: after[name] for name in before} == before


def pictures(root: Path, count: int) -> Path:
    random = np.random.default_rng(3)
    for number in range(count):
        for name in ("a", "b") if number < count - 1 else ("a",):
            (root / name).mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 200, (16, 16)).astype(np.uint8)
            write_image(root / name / f"{number}.tif", image_from_array(pixels, "YX"))
    return root


def test_the_numbers_drawn_are_reported(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set", 12)
    dataset = open_dataset(root)
    (finding,) = [one for one in check_folder(root) if one.code == "no-split-column"]
    train, val = (len(dataset.split(name)) for name in ("train", "val"))
    assert f"of 23 images {train} to train, {val} to val" in finding.problem
    write_set(tmp_path / "grouped", {"one": 3, "two": 2, "three": 4})
    grouped = [one for one in check_folder(tmp_path / "grouped") if one.code == "no-split-column"]
    assert "by the 3 groups of the column 'group', of 9 images" in grouped[0].problem


def test_what_is_lent_to_val_is_named(tmp_path: Path) -> None:
    for number in range(40):  # of few sets of three one has all in train
        root = tmp_path / f"{number}"
        write_set(root, {f"{number}-{one}": 1 for one in range(3)})
        dataset = open_dataset(root)
        if dataset.lent:
            (finding,) = [one for one in check_folder(root) if one.code == "no-split-column"]
            assert f"({dataset.lent[0].name}, drawn for train, is used for val" in finding.problem
            assert join_datasets([dataset, dataset]).lent == dataset.lent * 2
            return
    raise AssertionError("no set had all in train")


def test_a_class_that_a_drawn_split_lacks_is_reported_and_not_moved(tmp_path: Path) -> None:
    lacking = 0
    for seed in range(4):
        root = tmp_path / f"{seed}"
        random = np.random.default_rng(seed)
        for name in "ab":
            for number in range(4):
                (root / name).mkdir(parents=True, exist_ok=True)
                pixels = random.integers(0, 200, (16, 16)).astype(np.uint8)
                write_image(root / name / f"{number}.tif", image_from_array(pixels, "YX"))
        found = [one for one in check_folder(root) if one.code == "class-missing"]
        assert all(one.severity == "warning" for one in found)
        lacking += len(found)
        splits = {(item.label, item.split) for item in open_dataset(root).items}
        assert len(found) == 4 - len(splits)
    assert lacking


def test_a_group_in_two_given_splits_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"a")
    (tmp_path / "b.tif").write_bytes(b"b")
    (tmp_path / "manifest.csv").write_text(
        "image,label,split,group\na.tif,x,train,p1\nb.tif,y,val,p1\nb.tif,x,val,p2\n"
    )
    (finding,) = [one for one in check_folder(tmp_path) if one.code == "shared-group"]
    assert (finding.severity, "'p1' in train, val" in finding.problem) == ("warning", True)


def test_the_first_named_column_that_a_manifest_has_is_the_group(tmp_path: Path) -> None:
    for name, column in (("tiles", "mosaic"), ("plates", "well")):
        write_set(tmp_path / name, {f"{column}{number}": 3 for number in range(8)}, column=column)
    roots = (tmp_path / "tiles", tmp_path / "plates")
    both = DataSource(roots, "labels", groups=("well", "mosaic"))
    assert DataSource.from_record(both.to_record()) == both
    items = both.open().items
    splits: dict[str, set[str]] = {}
    for item in items:
        splits.setdefault(item.group, set()).add(item.split)
    assert len(splits) == 16
    assert all(len(names) == 1 for names in splits.values())
    with pytest.raises(DatasetError, match="expected the column slide in"):
        DataSource(roots, "labels", groups=("slide",)).open()
