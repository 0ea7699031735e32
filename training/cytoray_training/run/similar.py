"""Differences between the settings of two runs, and the unfinished run that is similar to a new one."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cytoray_analysis.errors import CytorayError
from cytoray_analysis.plain_yaml import load_yaml
from cytoray_services.locks import locked_if_free
from cytoray_training.plan.plan import Plan
from cytoray_training.recipe import Recipe, parse_recipe, shaping_fields

_FEW = 3  # maximum number of different settings of similar runs
_CHOOSES_DATA = ("data.", "training.label_share")


@dataclass(frozen=True)
class RunSettings:
    """The comparable settings of a run.

    Attributes
    ----------
    recipe
        As JSON, without its section ``tune``.
    asked
        Further settings that identify a study, such as ``{"tune": {…}}`` or ``{"shares": […]}``.
    data
        Content hash of the data set.
    """

    recipe: dict[str, Any]
    asked: dict[str, Any]
    data: str

    @classmethod
    def of(cls, plan: Plan, asked: Mapping[str, Any] | None = None) -> RunSettings:
        """Return the settings of a plan."""
        recipe = plan.recipe.model_dump(mode="json", exclude={"tune": True})
        # As read from the file.
        return cls(recipe, json.loads(json.dumps(dict(asked or {}), default=str)), plan.dataset_hash)


def differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return old and new value by dotted path, for all fields that differ; None for a missing value.

    Examples
    --------
    >>> differences({"training": {"seed": 0, "epochs": 9}}, {"training": {"seed": 1, "epochs": 9}})
    {'training.seed': (0, 1)}
    """
    found: dict[str, tuple[Any, Any]] = {}
    for name in [*before, *(name for name in after if name not in before)]:
        old, new = before.get(name), after.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found |= differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found[f"{prefix}{name}"] = (old, new)
    return found


def changed_settings(before: RunSettings, after: RunSettings) -> dict[str, tuple[Any, Any]]:
    """Return the changed settings of a run that continues; see :func:`differences`."""
    known = _recipe(before)
    # Parsed again, so that a field of a later version of Cytoray has its default.
    recipe = before.recipe if known is None else known.model_dump(mode="json", exclude={"tune": True})
    return differences(recipe, after.recipe)


def to_settings_of(before: RunSettings, plan: Plan, after: RunSettings) -> dict[str, tuple[Any, Any]]:
    """Return the few settings that differ between an earlier run and a new one; empty if the runs are not similar.

    Only settings of a run's identity count. Runs on other data are not similar, unless a setting chooses the data.
    """
    recipe = _recipe(before)
    if recipe is None:
        return {}
    found = differences(shaping_fields(recipe), shaping_fields(plan.recipe)) | differences(before.asked, after.asked)
    if len(found) > _FEW or (before.data != after.data and not any(path.startswith(_CHOOSES_DATA) for path in found)):
        return {}
    return found


def as_options(wanted: Mapping[str, Any]) -> str:
    """Return the command options that set these values, such as ``--set training.seed=1``."""
    words = []
    for path, value in wanted.items():
        if path == "shares":
            words.append(f"--shares {','.join(str(share) for share in value)}")
        else:
            words.append(f"--set {shlex.quote(f'{path}={shown(value)}')}")
    return " ".join(words)


def shown(value: Any) -> str:
    """Return a value in recipe syntax, on one line."""
    return value if isinstance(value, str) and load_yaml(value) == value else json.dumps(value)


def is_held(folder: Path) -> bool:
    """Whether a process is using the run in a folder."""
    lock = folder / "lock"
    if not lock.is_file():
        return False
    with locked_if_free(lock) as free:
        return not free


def _recipe(settings: RunSettings) -> Recipe | None:
    try:
        return parse_recipe(settings.recipe)
    except CytorayError:  # written by another version of Cytoray with unknown fields
        return None
