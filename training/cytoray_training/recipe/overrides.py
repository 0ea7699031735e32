"""``--set FIELD=VALUE``: values at dotted paths of a recipe, before it is validated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from cytoray_analysis.errors import RecipeError
from cytoray_analysis.plain_yaml import load_yaml


def apply_overrides(content: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the content of a recipe with the values of ``a.b=c`` overrides, which are parsed as YAML.

    Raises
    ------
    RecipeError
        An override has another form, names a field of a value, or overwrites another one.
    """
    _require_apart(overrides)
    changed = dict(content)
    for override in overrides:
        changed = _overridden(changed, override)
    return changed


def _require_apart(overrides: Sequence[str]) -> None:
    """Refuse overrides that overwrite each other: of the same field, or of a field and its section."""
    seen: dict[tuple[str, ...], str] = {}
    for text in overrides:
        keys = _keys_of(text)
        for other, earlier in seen.items():
            short = min(len(keys), len(other))
            if keys[:short] == other[:short]:
                raise RecipeError(
                    f"expected every field at most once, got {earlier!r} and {text!r}",
                    field="--set",
                    hint=f"keep one of them: both set {'.'.join(keys if len(keys) > len(other) else other)}",
                )
        seen[keys] = text


def _keys_of(text: str) -> tuple[str, ...]:
    return tuple(key.strip() for key in text.partition("=")[0].split("."))


def _overridden(content: dict[str, Any], text: str) -> dict[str, Any]:
    path, separator, value = text.partition("=")
    keys = list(_keys_of(text))
    if not separator or not all(keys):
        raise RecipeError(f"expected FIELD=VALUE, such as training.epochs=10, got {text!r}", field="--set")
    try:
        parsed = load_yaml(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"the value of {text!r} is not valid YAML: {error}", field=path) from error
    return with_value(content, keys, parsed, path)


def with_value(content: dict[str, Any], keys: list[str], value: Any, path: str) -> dict[str, Any]:
    """Return nested mappings with another value at some keys; `path` is their name in messages.

    Raises
    ------
    RecipeError
        A key names a field of a value.
    """
    if len(keys) == 1:
        return {**content, keys[0]: value}
    inner = content.get(keys[0]) or {}
    if not isinstance(inner, dict):
        raise RecipeError(f"{keys[0]!r} is a value ({inner!r}) without a field {keys[1]!r}", field=path)
    return {**content, keys[0]: with_value(inner, keys[1:], value, path)}
