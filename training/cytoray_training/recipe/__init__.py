"""The recipe: everything that decides what a training run does, read from YAML and checked before anything starts."""

from cytoray_training.recipe.reading import (
    changed_recipe,
    load_recipe,
    parse_recipe,
    read_recipe,
    recipe_hash,
    shaping_fields,
)
from cytoray_training.recipe.schema import REGISTRY, Halving, Recipe, Start, Training, Tune

__all__ = [
    "REGISTRY",
    "Halving",
    "Recipe",
    "Start",
    "Training",
    "Tune",
    "changed_recipe",
    "load_recipe",
    "parse_recipe",
    "read_recipe",
    "recipe_hash",
    "shaping_fields",
]
