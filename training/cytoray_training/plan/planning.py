"""From a recipe to a plan: all checks before a worker starts."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cytoray_analysis.errors import DatasetError, RecipeError
from cytoray_analysis.kinds import task_kind
from cytoray_services.datasets import Dataset, Finding, hash_dataset
from cytoray_services.settings import Settings
from cytoray_training.plan.code_version import code_version
from cytoray_training.plan.data_check import CheckedData, check_data
from cytoray_training.plan.dimensions import require_fitting
from cytoray_training.plan.image_kinds import require_kinds
from cytoray_training.plan.plan import Plan
from cytoray_training.plan.transfer import find_start
from cytoray_training.recipe import Recipe


def make_plan(recipe: Recipe, settings: Settings) -> Plan:
    """Check everything that can be checked before a worker starts.

    Raises
    ------
    RecipeError
        Network or task cannot be built as the recipe says, or a kind of image has no share or no images.
    DatasetError
        The data would make the training run useless; the message names the first file, and the number of further files.
    """
    require_each(recipe)
    checked = check_data(recipe, code=code_version())
    dataset = _passed(checked).share(recipe.training.label_share, seed=recipe.training.seed)
    require_kinds(dataset, recipe)
    start = None
    if recipe.model.start is not None:
        start = find_start(
            recipe.model.start, recipe.model.network.name, recipe.model.task.name, settings, within=recipe.data.within
        )
    warnings = tuple(summed_up(checked.findings))
    decided = checked.decided or {}
    plan = Plan(recipe, dataset, hash_dataset(dataset), decided, settings.home, start, settings.cache_folder, warnings)
    require_fitting(plan)
    return plan


def require_each(recipe: Recipe) -> None:
    """Raise :class:`RecipeError` if planes or frames are read one by one for a model that uses them together."""
    data = recipe.data
    for axis in data.select.each:
        field = "frame" if axis == "T" else "plane"
        if task_kind(recipe.model.task.name).per == "link" or axis in data.axes or (axis == "Z" and data.planes):
            raise RecipeError(
                f"expected no {field}: each for a model that uses all of them together",
                field=f"data.select.{field}",
                hint="remove it" if axis == "T" else "remove it, or train on planes: data.axes: YX",
            )


def summed_up(findings: Sequence[Finding]) -> list[str]:
    """Return the warnings among findings, each kind once with its first file."""
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.severity == "warning":
            found.setdefault(finding.code, []).append(finding)
    lines = []
    for code, members in found.items():
        first = members[0]
        files = first.file if len(members) == 1 else f"{len(members)} files, such as {first.file}"
        where = "" if first.file == "." else f"{files}: "  # a dot is the data set itself
        lines.append(f"{where}{first.problem}. {first.remedy} [{code}]")
    return lines


def _passed(checked: CheckedData) -> Dataset:
    """Print the warnings, and return the data unless a finding is an error."""
    errors = [finding for finding in checked.findings if finding.severity == "error"]
    for warning in summed_up(checked.findings):
        print(f"warning: {warning}", file=sys.stderr)
    if errors:
        first = errors[0]
        more = f" ({len(errors) - 1} more: see cytoray data check)" if len(errors) > 1 else ""
        where = "" if first.file == "." else f"{first.file}: "
        raise DatasetError(f"{where}{first.problem}{more}", field="data.root", hint=first.remedy)
    if checked.dataset is None:
        raise DatasetError("expected a data set, found none", field="data.root")
    return checked.dataset
