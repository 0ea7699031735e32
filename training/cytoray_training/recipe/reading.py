"""How recipes are read, changed and compared; errors in a recipe are reported before anything starts."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from cytoray_analysis.errors import DatasetError, MissingFileError, RecipeError
from cytoray_analysis.plain_yaml import load_yaml
from cytoray_services.datasets import absolute_or_uri
from cytoray_training.recipe.overrides import apply_overrides, with_value
from cytoray_training.recipe.schema import Recipe, Training

_HOW_A_STEP_IS_COMPUTED = ("engine", "zero_stage", "accumulate", "checkpoint_every")


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply ``a.b=c`` overrides, whose values are parsed as YAML.

    A relative ``data.root`` is relative to the working directory.

    Raises
    ------
    MissingFileError
        The recipe does not exist.
    RecipeError
        It is not a YAML mapping, names an unknown field, or contains a value out of range.
    """
    path = Path(path)
    if not path.is_file():
        hint = f"write a recipe for this data set: cytoray recipe init {path}" if path.is_dir() else None
        raise MissingFileError(f"expected a recipe file, found none at {path}", field="recipe", hint=hint)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"expected a text file, got {path}: {error}", field="recipe") from error
    return read_recipe(text, overrides, name=str(path))


def read_recipe(text: str, overrides: Sequence[str] = (), *, name: str = "the recipe") -> Recipe:
    """Read a recipe from text; see :func:`load_recipe`."""
    try:
        content = load_yaml(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{name} is not valid YAML: {error}", field="recipe") from error
    if not isinstance(content, dict):
        raise RecipeError(f"expected a mapping at the top of {name}, got {type(content).__name__}", field="recipe")
    return parse_recipe(apply_overrides(content, overrides))


def parse_recipe(content: Mapping[str, Any]) -> Recipe:
    """Validate a recipe in the form of nested mappings.

    Raises
    ------
    RecipeError
        With ``field`` set to the dotted path of the first offending field.
    """
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise _readable(error) from None
    roots = tuple(absolute_or_uri(root) for root in recipe.data.roots)
    places = {
        "root": roots[0] if len(roots) == 1 else roots,
        "validation": tuple(absolute_or_uri(root) for root in recipe.data.validation_roots),
        "within": recipe.data.within and tuple(map(absolute_or_uri, recipe.data.within)),
    }
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=places)})


def changed_recipe(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Return a recipe with other values at dotted paths, validated like a recipe from a file.

    Raises
    ------
    RecipeError
        See :func:`parse_recipe`.
    """
    content = recipe.model_dump(mode="json")
    for path, value in values.items():
        content = with_value(content, path.split("."), value, path)
    return parse_recipe(content)


def recipe_hash(recipe: Recipe) -> str:
    """Return the SHA-256 of all fields that affect the result.

    See :func:`shaping_fields` for the excluded fields.
    """
    return hashlib.sha256(json.dumps(shaping_fields(recipe), sort_keys=True).encode()).hexdigest()


def shaping_fields(recipe: Recipe) -> dict[str, Any]:
    """Return the fields of a recipe that affect the result, as JSON.

    Excluded are the location of the data (their content has its own hash), shards and the number of workers; engine,
    ZeRO stage, passes per step and checkpoint interval, which change how a step is computed but not its result; and
    search, folds and annotator agreement, which concern other training runs and the evaluation.
    """
    elsewhere = {"root", "validation", "within", "shards", "folds", "group", "stratify", "agreement"}
    if not recipe.data.select.given():  # older recipes do not have this choice
        elsewhere.add("select")
    if recipe.data.draw_test:
        elsewhere.add("draw_test")
    elsewhere |= {name for name in ("draw_validation", "kind", "shares") if not getattr(recipe.data, name)}
    # Their defaults are included: the hash of a recipe without these fields stays the same.
    same = {name: Training.model_fields[name].default for name in _HOW_A_STEP_IS_COMPUTED}
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update=same)})
    exclude: dict[str, Any] = {"data": elsewhere, "scale": True, "tune": True}
    new = ("invert", "mixing", "drop", "gradient", "jpeg")
    exclude["augmentation"] = {name for name in new if not getattr(recipe.augmentation, name)}
    if recipe.training.batch_norm == "local":  # as before this choice existed
        exclude["training"] = {"batch_norm"}
    return recipe.model_dump(mode="json", exclude=exclude)


def _readable(error: ValidationError) -> RecipeError:
    """Turn pydantic's report into one sentence with a path and a remedy."""
    problems = error.errors()
    first = problems[0]
    for problem in problems:
        raised = problem.get("ctx", {}).get("error")
        if isinstance(raised, RecipeError):
            return raised
        if isinstance(raised, DatasetError):
            return RecipeError(raised.message, field=_dotted(problem["loc"]), hint=raised.hint)
    field = _dotted(first["loc"])
    others = sorted({_dotted(problem["loc"]) for problem in problems} - {field})
    more = f" (also wrong: {', '.join(others)})" if others else ""
    if first["type"] == "extra_forbidden":
        known = _fields_beside(first["loc"])
        close = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"valid names: {', '.join(known)}"
        return RecipeError(f"unknown field {field!r}{more}", field=field, hint=hint)
    if first["type"] == "missing":
        return RecipeError(
            f"expected the field {field!r}, found none{more}", field=field, hint="add it to the recipe or use --set"
        )
    message = first["msg"][0].lower() + first["msg"][1:]
    return RecipeError(f"{field}: {message}, got {first['input']!r}{more}", field=field)


def _dotted(location: tuple[str | int, ...]) -> str:
    # Members of a union appear as extra parts of the path; they are not recipe fields.
    inner = ("literal[", "tuple[", "function-", "constrained-")
    return ".".join(str(step) for step in location if not str(step).startswith(inner)) or "recipe"


def _fields_beside(location: tuple[str | int, ...]) -> list[str]:
    section: type[BaseModel] = Recipe
    for step in location[:-1]:
        kind = section.model_fields[str(step)].annotation
        candidates = [kind, *get_args(kind)]
        section = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return sorted(section.model_fields)
