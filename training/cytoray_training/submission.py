"""The data that the platform needs to submit a recipe; found through the entry point ``cytoray.jobs``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cytoray_analysis.errors import RecipeError
from cytoray_training.recipe import load_recipe, read_recipe

if TYPE_CHECKING:
    from cytoray_training.plan.data_check import CheckedData


def check_recipe(path: Path, overrides: Sequence[str]) -> CheckedData:
    """Check the data of a recipe as ``cytoray train`` does; found through the entry point ``cytoray.checks``.

    Raises
    ------
    RecipeError, MissingFileError, PlatformError
        See :func:`cytoray_training.recipe.load_recipe` and :func:`cytoray_training.plan.data_check.check_data`.
    """
    from cytoray_training.plan.data_check import check_data

    return check_data(load_recipe(path, overrides))


def describe_recipe(text: str, overrides: Sequence[str], command: str) -> dict[str, Any]:
    """Check a recipe, and return name, recipe (YAML), scale and places of a submission.

    Raises
    ------
    RecipeError
        See :func:`cytoray_training.recipe.read_recipe`; or it has no section ``tune``.
    """
    recipe = read_recipe(text, overrides)
    if command == "tune" and recipe.tune is None:
        raise RecipeError("expected a section tune, found none", field="tune", hint="see docs/guides/search.md")
    places: list[Path | str | None] = [*recipe.data.roots, *recipe.data.validation_roots]
    if recipe.model.start is not None:
        places.append(recipe.model.start.place)
    within = recipe.data.within
    return {
        "name": recipe.model.name,
        "recipe": yaml.safe_dump(recipe.model_dump(mode="json", by_alias=True), sort_keys=False),
        "scale": recipe.scale,
        "data": tuple(str(one) for one in places if one is not None),
        "within": None if within is None else tuple(map(str, within)),
    }
