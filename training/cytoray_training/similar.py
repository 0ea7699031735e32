"""What differs between the settings of two runs, and the unfinished run that is like a new one."""

from __future__ import annotations

import fcntl
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cytoray_analysis.errors import CytorayError
from cytoray_analysis.plain_yaml import load_yaml
from cytoray_training.plan import Plan
from cytoray_training.recipe import Recipe, parse_recipe, shaping_fields

_FEW = 3  # settings; runs that differ in more of them are other runs
_CHOOSES_DATA = ("data.", "training.label_share")


@dataclass(frozen=True)
class RunSettings:
    """What a run was started with, as far as it can be compared.

    Attributes
    ----------
    recipe
        As JSON, without its section ``tune``.
    asked
        What else tells one study from another, such as ``{"tune": {…}}`` or ``{"shares": […]}``.
    data
        Content hash of the data set.
    """

    recipe: dict[str, Any]
    asked: dict[str, Any]
    data: str

    @classmethod
    def of(cls, plan: Plan, asked: Mapping[str, Any] | None = None) -> RunSettings:
        """Return those of a plan."""
        recipe = plan.recipe.model_dump(mode="json", exclude={"tune": True})
        # As they come back from the file.
        return cls(recipe, json.loads(json.dumps(dict(asked or {}), default=str)), plan.dataset_hash)


def differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return value before and value after by dotted path, of all fields whose values differ; None where there is none.

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
    """Return what of its settings a run that is gone on with has otherwise than before; see :func:`differences`."""
    known = _recipe(before)
    # Read again, so that a field which came with a later version of Cytoray has its default.
    recipe = before.recipe if known is None else known.model_dump(mode="json", exclude={"tune": True})
    return differences(recipe, after.recipe)


def to_settings_of(before: RunSettings, plan: Plan, after: RunSettings) -> dict[str, tuple[Any, Any]]:
    """Return the few settings in which an earlier run is another one than a new one; empty where they are unlike.

    Only what belongs to a run's identity counts. Runs on other data are unlike, unless a setting chooses the data.
    """
    recipe = _recipe(before)
    if recipe is None:
        return {}
    found = differences(shaping_fields(recipe), shaping_fields(plan.recipe)) | differences(before.asked, after.asked)
    if len(found) > _FEW or (before.data != after.data and not any(path.startswith(_CHOOSES_DATA) for path in found)):
        return {}
    return found


def as_options(wanted: Mapping[str, Any]) -> str:
    """Return the options of a command that give settings these values, such as ``--set training.seed=1``."""
    words = []
    for path, value in wanted.items():
        if path == "shares":
            words.append(f"--shares {','.join(str(share) for share in value)}")
        else:
            words.append(f"--set {shlex.quote(f'{path}={shown(value)}')}")
    return " ".join(words)


def shown(value: Any) -> str:
    """Return a value as a recipe has it, on one line."""
    return value if isinstance(value, str) and load_yaml(value) == value else json.dumps(value)


def is_held(folder: Path) -> bool:
    """Whether a process is at the run in a folder."""
    lock = folder / "lock"
    if not lock.is_file():
        return False
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _recipe(settings: RunSettings) -> Recipe | None:
    try:
        return parse_recipe(settings.recipe)
    except CytorayError:  # of another version of Cytoray, with fields that are unknown here
        return None
