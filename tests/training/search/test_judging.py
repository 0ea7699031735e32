"""The best of a search is judged by images that chose nothing, with new seeds and an interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cytoray_analysis.errors import RecipeError
from cytoray_services.datasets import Dataset, Item
from cytoray_services.statistics.counts import UnitScores, ratio_of
from cytoray_training.recipe import Recipe
from cytoray_training.search.comparison import compare_recipes
from cytoray_training.search.held_out import hold_out_test


def mean_of(values: np.ndarray, metric: str) -> UnitScores:
    """Return a score that is the mean over units."""
    of = {metric: ratio_of(values, np.ones(len(values)))}
    return UnitScores({metric: float(values.mean())}, len(values), frozenset(of), of)


def models(chance: np.random.Generator, worth: float, hard: np.ndarray, metric: str = "ap50") -> list[UnitScores]:
    """Return two seeds of a recipe: they differ by 0.01, and images are as hard for one as for the other."""
    seeds = worth + chance.normal(0, 0.01, 2)
    return [mean_of(seed + hard + chance.normal(0, 0.03, len(hard)), metric) for seed in seeds]


@pytest.mark.slow
def test_equal_recipes_are_rarely_distinguished_and_the_interval_holds_the_gain() -> None:
    chance = np.random.default_rng(0)
    decided, held = 0, 0
    for _ in range(150):
        hard = chance.normal(0, 0.2, 20)
        one = compare_recipes("ap50", models(chance, 0.7, hard), models(chance, 0.7, hard), unit="image")
        decided += one.verdict != "inconclusive"
        held += one.low <= 0 <= one.high
    assert decided <= 14
    assert held >= 136


@pytest.mark.parametrize(("metric", "verdict"), [("ap50", "better"), ("missed", "no better")])
def test_a_clear_difference_is_reported_by_the_direction_of_the_score(metric: str, verdict: str) -> None:
    chance = np.random.default_rng(0)
    hard = chance.normal(0, 0.2, 30)
    one = compare_recipes(metric, models(chance, 0.9, hard, metric), models(chance, 0.6, hard, metric), unit="image")
    assert one.verdict == verdict
    assert abs(one.gain) == pytest.approx(0.3, abs=0.05)
    assert (one.gain > 0) == (verdict == "better")
    assert one.low < one.gain < one.high
    assert f"{verdict} than the unchanged recipe" in one.sentence
    assert "30 images" in one.sentence


def test_seeds_that_differ_much_and_few_images_leave_it_open() -> None:
    chance = np.random.default_rng(0)
    hard = chance.normal(0, 0.2, 30)
    far = [mean_of(hard + level, "ap50") for level in (0.9, 0.6)]
    near = [mean_of(hard + level, "ap50") for level in (0.6, 0.6)]
    assert compare_recipes("ap50", far, near, unit="image").verdict == "inconclusive"
    few = compare_recipes("ap50", models(chance, 0.9, hard[:4]), models(chance, 0.5, hard[:4]), unit="movie")
    assert few.verdict == "inconclusive"
    assert "are based on 4 movies" in few.sentence


def grouped(groups: int, *, val: int = 0, also_val: bool = False) -> Dataset:
    names = [(group, tile) for group in range(groups) for tile in "ab"]
    items = [Item(Path(f"/d/{group}-{tile}.tif"), None, "train", group=f"g{group}") for group, tile in names]
    items += [Item(Path(f"/d/v{at}.tif"), None, "val", group="g0" if also_val else "") for at in range(val)]
    return Dataset(Path("/d"), tuple(items))


def test_a_fifth_of_the_groups_of_train_is_held_out_whole() -> None:
    held = hold_out_test(grouped(40, val=3, also_val=True))
    sides = {split: {item.group for item in held.split(split).items} for split in held.splits}
    assert len(sides["test"]) == 7  # of 39 groups that are in train only
    assert not sides["test"] & (sides["train"] | sides["val"])
    assert len(held.split("val")) == 3
    assert held == hold_out_test(grouped(40, val=3, also_val=True))


def test_nothing_is_held_out_of_few_groups_or_beside_a_test_that_is_there() -> None:
    few = grouped(29, val=3)
    assert hold_out_test(few) is few
    given = grouped(40, val=3)
    given = replace(given, items=(replace(given.items[0], split="test"), *given.items[1:]))
    assert hold_out_test(given) is given


def test_one_seed_is_refused(make_recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(RecipeError, match="at least 2 seeds"):
        make_recipe({"space": {"training.learning_rate": {"range": [1e-3, 1e-2]}}, "confirm": 1})


def test_what_cannot_be_compared_has_no_end_that_json_cannot_say() -> None:
    one = [mean_of(np.array([0.5]), "ap50")] * 2
    described = compare_recipes("ap50", one, one, unit="image").described()
    assert described["low"] is None
    assert math.isfinite(described["gain"])
