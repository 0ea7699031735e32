"""The space of a search: which fields of a recipe are varied, and over what."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel

from cytoray_analysis.errors import RecipeError
from cytoray_training.recipe import Recipe, changed_recipe
from cytoray_training.recipe.search_fields import require_searchable

# YAML 1.1 reads 1e-4 without a point as text; a recipe's own fields accept it as a number.
_EXPONENTIAL = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")
_FORMS = "{choice: […]}, {range: [low, high]} or {log_range: [low, high]}"


@dataclass(frozen=True)
class Choice:
    """One of several unordered values."""

    values: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that must all be valid in the recipe."""
        return self.values

    def place(self, value: Any) -> int | None:
        """Return the index of a value; None for any other value."""
        texts = [json.dumps(one) for one in self.values]
        text = json.dumps(value)
        return texts.index(text) if text in texts else None

    def value(self, place: Any) -> Any:
        """Return the value of a place."""
        return self.values[place]


@dataclass(frozen=True)
class Range:
    """A number between two limits, inclusive; in a logarithmic range, equal factors are equally likely."""

    low: float
    high: float
    whole: bool = False
    log: bool = False

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that must all be valid in the recipe."""
        return (self.low, self.high)

    def place(self, value: Any) -> float | None:
        """Return the value as a number; None outside the range."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return None
        return value

    def value(self, place: Any) -> Any:
        """Return the value of a place."""
        return int(place) if self.whole else float(place)


Space = Mapping[str, Choice | Range]


def parse_space(recipe: Recipe) -> dict[str, Choice | Range]:
    """Read and check the space of a recipe's section ``tune``.

    Every value in the space is checked with the recipe, one at a time, so no trial starts with an impossible value.

    Raises
    ------
    RecipeError
        The section is missing, it names a field that the recipe does not have or that cannot vary, or a value is
        invalid.
    """
    if recipe.tune is None:
        raise RecipeError(
            "expected a section `tune` in the recipe, found none",
            field="tune",
            hint="add it, such as tune: {space: {training.learning_rate: {log_range: [1.0e-4, 1.0e-2]}}}",
        )
    plain = recipe.model_copy(update={"tune": None})
    space = {}
    for path, form in recipe.tune.space.items():
        _require_field(path)
        parameter = _parameter(path, form)
        for value in parameter.ends:
            changed_recipe(plain, {path: value})
        space[path] = parameter
    return space


def place_of(space: Space, recipe: Recipe, values: Mapping[str, Any]) -> dict[str, float | int] | None:
    """Return the position of a recipe in the space, or None if it is outside.

    Parameters
    ----------
    space
        What is varied.
    recipe
        Gives the values that were not changed.
    values
        The changed values.
    """
    content = recipe.model_dump(mode="json")
    places = {}
    for path, parameter in space.items():
        place = parameter.place(values[path] if path in values else _value_at(content, path))
        if place is None:
            return None
        places[path] = place
    return places


def _value_at(content: Any, path: str) -> Any:
    for key in path.split("."):
        if not isinstance(content, Mapping) or key not in content:
            return None
        content = content[key]
    return content


def _require_field(path: str) -> None:
    field = f"tune.space.{path}"
    require_searchable(path)
    section: type[BaseModel] | None = Recipe
    keys = path.split(".")
    for index, key in enumerate(keys):
        if section is None:
            break  # in a mapping, such as the arguments of a network, which the network itself checks
        if key not in section.model_fields:
            close = difflib.get_close_matches(path, _all_fields(Recipe), n=1, cutoff=0.5)
            near = difflib.get_close_matches(key, sorted(section.model_fields), n=1, cutoff=0.5)
            meant = ".".join([*keys[:index], near[0], *keys[index + 1 :]]) if near else close[0] if close else None
            hint = f"did you mean {meant!r}?" if meant else f"valid names: {', '.join(sorted(section.model_fields))}"
            raise RecipeError(f"expected a field of a recipe, got {path!r}", field=field, hint=hint)
        section, free = _below(section, key)
        last = index == len(keys) - 1
        if last and section is not None:
            raise RecipeError(
                f"expected a field with a value, got the section {path!r}",
                field=field,
                hint=f"name one of {', '.join(f'{path}.{name}' for name in sorted(section.model_fields))}",
            )
        if not last and section is None and not free:
            raise RecipeError(
                f"{'.'.join(keys[: index + 1])!r} is a value without fields",
                field=field,
            )


def _below(section: type[BaseModel], key: str) -> tuple[type[BaseModel] | None, bool]:
    """Return the section in a field, and whether the field is a free mapping."""
    kind = section.model_fields[key].annotation
    candidates = [kind, *get_args(kind)]
    inner = next((one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)), None)
    return inner, any(str(one).startswith("dict") for one in candidates)


def _all_fields(section: type[BaseModel], prefix: str = "") -> list[str]:
    names = []
    for key in section.model_fields:
        inner, _ = _below(section, key)
        names += _all_fields(inner, f"{prefix}{key}.") if inner is not None else [f"{prefix}{key}"]
    return names


def _parameter(path: str, form: Mapping[str, Any]) -> Choice | Range:
    field = f"tune.space.{path}"
    if len(form) != 1 or next(iter(form)) not in ("choice", "range", "log_range"):
        raise RecipeError(f"expected {_FORMS}, got {dict(form)!r}", field=field)
    kind, given = next(iter(form.items()))
    if not isinstance(given, list | tuple) or len(given) < 2:
        raise RecipeError(f"expected at least two values, got {given!r}", field=f"{field}.{kind}")
    given = [float(one) if isinstance(one, str) and _EXPONENTIAL.fullmatch(one) else one for one in given]
    if kind == "choice":
        return Choice(tuple(given))
    return _range(field, kind, given)


def _range(field: str, kind: Literal["range", "log_range"] | str, given: Any) -> Range:
    numbers = [one for one in given if isinstance(one, int | float) and not isinstance(one, bool)]
    if len(given) != 2 or len(numbers) != 2 or not all(map(math.isfinite, numbers)) or numbers[0] >= numbers[1]:
        raise RecipeError(f"expected two numbers, the lower first, got {given!r}", field=f"{field}.{kind}")
    if kind == "log_range" and numbers[0] <= 0:
        raise RecipeError(f"expected numbers above zero for log_range, got {given!r}", field=f"{field}.{kind}")
    return Range(numbers[0], numbers[1], all(isinstance(one, int) for one in numbers), kind == "log_range")
