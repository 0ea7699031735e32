"""Kinds of images: each has its share of the crops, and counts as much as every other in scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cytoray_analysis.errors import RecipeError
from cytoray_services.datasets import Dataset, Item
from cytoray_training.plan.image_kinds import kind_of, kinds_of_files, mean_scores, require_kinds
from cytoray_training.recipe import Recipe

ROWS = [("train", {"kind": "fluo_256", "dataset": "dsb"}), ("train", {"dataset": "he"}), ("val", {"dataset": "he"})]


def recipe(**data: Any) -> Recipe:
    return Recipe.model_validate({"model": {"name": "m"}, "data": {"root": "somewhere", **data}})


def dataset() -> Dataset:
    items = [Item(Path(f"/data/{n}.tif"), None, split, row) for n, (split, row) in enumerate(ROWS)]
    return Dataset(Path("/data"), tuple(items))


def test_a_kind_is_a_value_of_the_column_or_else_the_folder() -> None:
    chosen = recipe(kind="kind", shares={"fluo_*": 2, "he": 1})
    assert kinds_of_files(dataset(), chosen) == {"0.tif": "fluo_*", "1.tif": "he"}
    require_kinds(dataset(), chosen)
    assert kinds_of_files(dataset(), recipe()) == {}
    assert kind_of(dataset().items[0], recipe()) == ""


@pytest.mark.parametrize(
    ("shares", "message"),
    [({"fluo_*": 1}, "expected a share for the kind 'he'"), ({"*": 1, "pap": 1}, "images of the kind 'pap'")],
)
def test_a_kind_without_share_and_a_share_without_images_are_refused(shares: dict[str, float], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        require_kinds(dataset(), recipe(kind="kind", shares=shares))


def test_each_kind_counts_as_much_in_a_score() -> None:
    assert mean_scores([{"msa": 0.2, "ap50": 0.5}, {"msa": 0.6}]) == {"msa": pytest.approx(0.4), "ap50": 0.5}
