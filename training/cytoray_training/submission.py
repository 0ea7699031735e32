"""What the platform must know of a recipe to submit it; found through the entry point ``cytoray.jobs``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cytoray_analysis.errors import RecipeError
from cytoray_training.recipe import load_recipe, read_recipe

if TYPE_CHECKING:
    from cytoray_training.data_check import CheckedData


def check_recipe(path: Path, overrides: Sequence[str]) -> CheckedData:
    """Look at the data of a recipe as ``cytoray train`` does; found through the entry point ``cytoray.checks``.

    Raises
    ------
    RecipeError, MissingFileError, PlatformError
        See :func:`cytoray_training.recipe.load_recipe` and :func:`cytoray_training.data_check.check_data`.
    """
    from cytoray_training.data_check import check_data

    return check_data(load_recipe(path, overrides))


def describe_recipe(text: str, overrides: Sequence[str], command: str) -> dict[str, Any]:
    """Check a recipe, and return name, recipe (YAML), scale and data of a submission.

    Raises
    ------
    RecipeError
        See :func:`cytoray_training.recipe.read_recipe`; or it has nothing to tune.
    """
    recipe = read_recipe(text, overrides)
    if command == "tune" and recipe.tune is None:
        raise RecipeError("expected a section tune, got none", field="tune", hint="see docs/guides/search.md")
    return {
        "name": recipe.model.name,
        "recipe": yaml.safe_dump(recipe.model_dump(mode="json", by_alias=True), sort_keys=False),
        "scale": recipe.scale,
        "data": tuple(str(root) for root in (*recipe.data.roots, *recipe.data.validation_roots)),
    }
