"""Folds: groups stay together, every item is validated once, strata are balanced, and the interval is an interval."""

from __future__ import annotations

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
from cytoray_training.train import run_training

MakeRecipe = Callable[..., Recipe]


def dataset(groups: list[int], strata: list[str], splits: list[str]) -> Dataset:
    items = tuple(
        Item(Path(f"/data/{index}.tif"), None, split, {"well": f"w{group}", "kind": kind}, label=kind)
        for index, (group, kind, split) in enumerate(zip(groups, strata, splits, strict=True))
    )
    return Dataset(Path("/data"), items, "class")


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from("ab"), st.sampled_from(["train", "val", "test"])),
        min_size=4,
        max_size=60,
    ),
    folds=st.integers(2, 4),
    seed=st.integers(0, 3),
)
def test_no_group_is_on_both_sides_and_every_item_is_validated_once(
    rows: list[tuple[int, str, str]], folds: int, seed: int
) -> None:
    data = dataset([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])
    divided = [item for item in data.items if item.split != "test"]
    assume(len({item.row["well"] for item in divided}) >= folds)
    parts = split_folds(data, folds, group="well", stratify="kind", seed=seed)
    assert len(parts) == folds
    validated: Counter[Path] = Counter()
    for part in parts:
        train = {item.row["well"] for item in part.items if item.split == "train"}
        val = {item.row["well"] for item in part.items if item.split == "val"}
        assert train
        assert val
        assert not train & val
        assert [item.image for item in part.items if item.split == "test"] == [
            item.image for item in data.items if item.split == "test"
        ]
        validated.update(item.image for item in part.items if item.split == "val")
    assert validated == Counter(item.image for item in divided)


@given(counts=st.tuples(st.integers(4, 20), st.integers(4, 20)), folds=st.integers(2, 4))
def test_strata_are_balanced_where_groups_allow(counts: tuple[int, int], folds: int) -> None:
    kinds = ["a"] * counts[0] + ["b"] * counts[1]
    parts = split_folds(dataset(list(range(len(kinds))), kinds, ["train"] * len(kinds)), folds)
    for kind, count in zip("ab", counts, strict=True):
        shares = [sum(item.split == "val" and item.label == kind for item in part.items) for part in parts]
        assert max(shares) - min(shares) <= 2
        assert sum(shares) == count


def test_cells_of_one_image_and_images_of_one_well_stay_together() -> None:
    items = tuple(
        Item(Path(f"/data/{image}.tif"), None, "train", {"well": well}, label="a", box=((cell, 0), (cell + 1, 1)))
        for image, well in ((0, "p"), (1, "p"), (1, "q"), (2, "q"), (3, "r"), (4, "s"))
        for cell in range(2)
    )
    for part in split_folds(Dataset(Path("/data"), items, "class"), 2, group="well"):
        sides = {split: {str(item.image) for item in part.items if item.split == split} for split in ("train", "val")}
        assert not sides["train"] & sides["val"]
        # Image 1 holds both wells, so that images 0, 1 and 2 are one group.
        linked = {"/data/0.tif", "/data/1.tif", "/data/2.tif"}
        assert linked <= sides["train"] or linked <= sides["val"]


def test_too_few_groups_and_unknown_columns_are_refused() -> None:
    data = dataset([0, 0, 1, 1], ["a"] * 4, ["train"] * 4)
    with pytest.raises(DatasetError, match="at least 3 groups"):
        split_folds(data, 3, group="well")
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


@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_cluster")
def test_a_recipe_with_folds_reports_their_spread_and_registers_the_model_of_its_own_split(
    cytoray_home: Path, make_recipe: MakeRecipe
) -> None:
    settings = load_settings()
    outcome = run_training(make_recipe(data={"folds": 2}, epochs=1), settings)
    spread = outcome["cross_validation"]["pearson"]
    assert spread["low"] < spread["mean"] < spread["high"]
    version = Registry.open(settings).resolve("tiny@candidate")
    assert version.version == outcome["version"]
    assert version.run_id == outcome["run_id"]
    assert float(version.tags["cross_validation.pearson.mean"]) == pytest.approx(spread["mean"])
    (study,) = (cytoray_home / "studies").iterdir()
    assert {path.name for path in study.glob("*/progress.jsonl")} == {"progress.jsonl"}
    assert {path.parent.name for path in study.glob("*/progress.jsonl")} == {"fold-1", "fold-2", "final"}
