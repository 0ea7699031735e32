"""Kinds of images in one training run: how many crops each gives, and scores as means over kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from cytoray_analysis.errors import RecipeError
from cytoray_services.datasets import Dataset, Item
from cytoray_training.recipe import Recipe


def kind_of(item: Item, recipe: Recipe) -> str:
    """Return the first pattern in ``data.shares`` that the kind of an image matches; empty without shares.

    Raises
    ------
    RecipeError
        The kind matches none.
    """
    data = recipe.data
    if not data.shares:
        return ""
    kind = item.row.get(data.kind or "") or item.row.get("dataset", "")
    found = next((pattern for pattern in data.shares if fnmatchcase(kind, pattern)), None)
    if found is None:
        raise RecipeError(
            f"expected a share for the kind {kind!r} of {item.image.name}, got shares for {', '.join(data.shares)}",
            field="data.shares",
            hint='add a share for it, or for all others: "*": 1',
        )
    return found


def require_kinds(dataset: Dataset, recipe: Recipe) -> None:
    """Raise :class:`RecipeError` unless each image has a share, and each share training images."""
    found = {kind_of(item, recipe) for item in dataset.items if item.split == "train"}
    for item in dataset.items:
        kind_of(item, recipe)
    for pattern in recipe.data.shares:
        if pattern not in found:
            raise RecipeError(
                f"expected training images of the kind {pattern!r}, found none",
                field=f"data.shares.{pattern}",
                hint="kinds are values of the column data.kind, or names of the folders in data.root",
            )


def kinds_of_files(dataset: Dataset, recipe: Recipe) -> Mapping[str, str]:
    """Return the kind of each training image by its name in the data set; empty without shares."""
    if not recipe.data.shares:
        return {}
    training = [item for item in dataset.items if item.split == "train"]
    return {dataset.name_of(item.image): kind_of(item, recipe) for item in training}


def mean_scores(by_kind: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each score over the kinds that have it."""
    names = dict.fromkeys(name for scores in by_kind for name in scores)
    found = {name: [scores[name] for scores in by_kind if name in scores] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items()}
