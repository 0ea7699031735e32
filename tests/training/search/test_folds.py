"""Folds: groups stay together, every item is validated once, strata are balanced, and the interval is an interval."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cytoray_analysis.errors import DatasetError
from cytoray_services.datasets import Dataset, Item
from cytoray_services.registry import Registry
from cytoray_services.settings import load_settings
from cytoray_training.recipe import Recipe
from cytoray_training.search.folds import split_folds, spread_of
from cytoray_training.search.grouping import groups_of
from cytoray_training.search.held_out import hold_out_test
from cytoray_training.train import run_training

MakeRecipe = Callable[..., Recipe]


def dataset(groups: list[int], strata: list[str], splits: list[str]) -> Dataset:
    items = tuple(
        Item(Path(f"/data/{index}.tif"), None, split, {"well": f"w{group}", "kind": kind}, label=kind)
        for index, (group, kind, split) in enumerate(zip(groups, strata, splits, strict=True))
    )
    return Dataset(Path("/data"), items, "class")


@pytest.mark.slow
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from("ab"), st.sampled_from(["train", "val", "test"])),
        min_size=4,
        max_size=60,
    ),
    folds=st.integers(3, 4),
    seed=st.integers(0, 3),
)
def test_no_group_is_in_two_parts_and_every_item_is_scored_once(
    rows: list[tuple[int, str, str]], folds: int, seed: int
) -> None:
    data = dataset([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])
    divided = [item for item in data.items if item.split != "test"]
    assume(len({item.row["well"] for item in divided}) >= folds)
    parts = split_folds(data, folds, group="well", stratify="kind", seed=seed)
    assert len(parts) == folds
    scored: Counter[Path] = Counter()
    for part in parts:
        train, val, test = (
            {item.row["well"] for item in part.items if item.split == split} for split in ("train", "val", "test")
        )
        assert train
        assert val
        assert test
        assert not train & val
        assert not test & (train | val)
        assert {item.image for item in part.items} == {item.image for item in divided}
        scored.update(item.image for item in part.items if item.split == "test")
    assert scored == Counter(item.image for item in divided)


@pytest.mark.parametrize("in_row", [False, True])
def test_the_group_of_the_manifest_is_honoured_without_being_named(in_row: bool) -> None:
    items = tuple(
        Item(
            Path(f"/data/{patient}-{tile}.tif"),
            None,
            "train",
            {"group": f"p{patient}"} if in_row else {},
            group="" if in_row else f"p{patient}",
        )
        for patient in range(6)
        for tile in range(5)
    )
    for part in split_folds(Dataset(Path("/data"), items), 3):
        sides = [
            {item.image.name[0] for item in part.items if item.split == split} for split in ("train", "val", "test")
        ]
        assert sum(map(len, sides)) == 6


def test_images_of_one_truth_stay_together() -> None:
    items = tuple(
        Item(Path(f"/data/{at}-{focus}.tif"), Path(f"/data/masks/{at}.tif"), "train")
        for at in range(6)
        for focus in range(3)
    )
    assert len(set(groups_of(items))) == 6


@pytest.mark.slow
@given(counts=st.tuples(st.integers(4, 20), st.integers(4, 20)), folds=st.integers(2, 4))
def test_strata_are_balanced_where_groups_allow(counts: tuple[int, int], folds: int) -> None:
    kinds = ["a"] * counts[0] + ["b"] * counts[1]
    parts = split_folds(dataset(list(range(len(kinds))), kinds, ["train"] * len(kinds)), folds)
    for kind, count in zip("ab", counts, strict=True):
        shares = [sum(item.split == "test" and item.label == kind for item in part.items) for part in parts]
        assert max(shares) - min(shares) <= 2
        assert sum(shares) == count


def test_cells_of_one_image_and_images_of_one_well_stay_together() -> None:
    items = tuple(
        Item(Path(f"/data/{image}.tif"), None, "train", {"well": well}, label="a", box=((cell, 0), (cell + 1, 1)))
        for image, well in ((0, "p"), (1, "p"), (1, "q"), (2, "q"), (3, "r"), (4, "s"), (5, "t"), (6, "u"), (7, "v"))
        for cell in range(2)
    )
    for part in split_folds(Dataset(Path("/data"), items, "class"), 2, group="well"):
        sides = [{str(item.image) for item in part.items if item.split == split} for split in ("train", "val", "test")]
        assert sum(map(len, sides)) == 8
        # Image 1 holds both wells, so that images 0, 1 and 2 are one group.
        linked = {"/data/0.tif", "/data/1.tif", "/data/2.tif"}
        assert any(linked <= side for side in sides)


def test_too_few_groups_and_unknown_columns_are_refused() -> None:
    data = dataset([0, 0, 1, 1], ["a"] * 4, ["train"] * 4)
    with pytest.raises(DatasetError, match="at least 3 groups"):
        split_folds(data, 3, group="well")
    with pytest.raises(DatasetError, match="outside fold"):
        split_folds(data, 2, group="well")
    with pytest.raises(DatasetError, match="plate") as caught:
        split_folds(data, 2, group="plate")
    assert caught.value.field == "data.group"


def test_the_interval_holds_the_mean_as_often_as_it_says_and_is_wider_for_overlapping_trainings() -> None:
    chance = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        # Scores of folds share most of their training data: what they have in common is not seen in their spread.
        common = chance.normal(0, 0.02 * np.sqrt(0.2))
        values = 0.8 + common + chance.normal(0, 0.02, 5)
        spread = spread_of([{"score": value} for value in values])["score"]
        held += spread.low <= 0.8 <= spread.high
    assert 0.92 <= held / 400 <= 0.99
    known = spread_of([{"score": value, "other": 1.0} for value in (0.7, 0.8, 0.9)])["score"]
    assert known.mean == pytest.approx(0.8)
    assert known.std == pytest.approx(0.1)
    assert known.high - known.mean == pytest.approx(4.302653 * 0.1 * np.sqrt(1 / 3 + 1 / 2), rel=1e-4)
    # What chooses does not train: a fold is larger beside what trains, and the interval wider.
    wider = spread_of([{"score": value} for value in (0.7, 0.8, 0.9)], 0.625)["score"]
    assert wider.high - wider.mean == pytest.approx(4.302653 * 0.1 * np.sqrt(1 / 3 + 0.625), rel=1e-4)


def test_a_fold_that_chooses_by_its_own_images_would_score_too_well() -> None:
    """The best of 30 equal epochs is chosen by the inner part: its score on the fold is no better than any other."""
    data = dataset(list(range(60)), ["a"] * 60, ["train"] * 60)
    chance = np.random.default_rng(0)
    inner, scored = [], []
    for part in split_folds(data, 5, group="well") * 10:
        noise = {item.image: chance.normal(0, 0.1, 30) for item in part.items}
        of = {
            split: np.mean([noise[item.image] for item in part.items if item.split == split], axis=0)
            for split in ("val", "test")
        }
        best = int(of["val"].argmax())
        inner.append(of["val"][best])
        scored.append(of["test"][best])
    assert np.mean(inner) > 0.04
    assert abs(np.mean(scored)) < 0.015


@pytest.mark.slow
@pytest.mark.usefixtures("without_ray")
def test_a_recipe_with_folds_reports_their_spread_and_registers_the_model_of_its_own_split(
    cytoray_home: Path, make_recipe: MakeRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load_settings()
    outcome = run_training(make_recipe(data={"folds": 2}, epochs=1), settings)
    spread = outcome["cross_validation"]["pearson"]
    assert spread["low"] < spread["mean"] < spread["high"]
    assert (outcome["units"], outcome["unit"]) == (8, "image")
    assert "chose the epoch" in outcome["metrics_are"]
    assert "the scores are based on 8" not in capsys.readouterr().err
    version = Registry.open(settings).resolve("tiny@candidate")
    assert version.version == outcome["version"]
    assert version.run_id == outcome["run_id"]
    assert float(version.tags["cross_validation.pearson.mean"]) == pytest.approx(spread["mean"])
    (study,) = (cytoray_home / "studies").iterdir()
    assert {path.name for path in study.glob("*/progress.jsonl")} == {"progress.jsonl"}
    assert {path.parent.name for path in study.glob("*/progress.jsonl")} == {"fold-1", "fold-2", "final"}
    folds = [json.loads((study / "members" / f"fold-{number}.json").read_text())["facts"] for number in (1, 2)]
    assert spread["mean"] == pytest.approx(np.mean([fold["test"]["pearson"] for fold in folds]))
    assert all(fold["test"] != fold["metrics"] for fold in folds)  # these are of the images that chose


def test_copies_of_one_image_stay_together(tmp_path: Path) -> None:
    def item(number: int, copy: str) -> Item:
        image = tmp_path / f"{copy}{number:02}.tif"
        image.write_bytes(bytes([number]))
        return Item(image, tmp_path / f"{image.stem}-mask.tif", "val" if number < 8 else "train")

    copied = Dataset(tmp_path, tuple(item(number, copy) for number in range(40) for copy in "ab"))
    for part in (*split_folds(copied, 5), hold_out_test(copied)):
        splits: dict[str, set[str]] = {}
        for one in part.items:
            splits.setdefault(one.image.stem[1:], set()).add(one.split)
        assert all(len(found) == 1 for found in splits.values())
        assert "test" in part.splits
