"""One training from end to end: check the data, train, publish."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from cytoray_analysis.errors import DatasetError
from cytoray_services.datasets import Dataset, Finding, hash_dataset
from cytoray_services.registry import KEPT, Registry, Run
from cytoray_services.settings import Settings
from cytoray_services.statistics.intervals import described
from cytoray_training.data_check import CheckedData, check_data
from cytoray_training.diagnosis.diagnose import diagnosed_on_failure
from cytoray_training.dimensions import require_fitting
from cytoray_training.launch import Listener, launch
from cytoray_training.plan import Plan, require_each
from cytoray_training.progress_bar import ProgressBar
from cytoray_training.publish import CHOSEN_BY, code_version, publish
from cytoray_training.recipe import Recipe, recipe_hash
from cytoray_training.runs import claim_run
from cytoray_training.transfer import find_start


def run_training(recipe: Recipe, settings: Settings, *, on: str = "local", fresh: bool = False) -> dict[str, Any]:
    """Train as the recipe says, going on with an interrupted training, and register the model.

    A recipe with ``data.folds`` is cross-validated first; see :func:`cytoray_training.search.folds.cross_validate`.

    Returns
    -------
    dict
        ``{model, version, run_id, bundle, metrics, metrics_are, seconds}``, and ``cross_validation``, ``units`` and
        ``unit`` where there are folds.

    Raises
    ------
    RecipeError, DatasetError
        The recipe or the data would ruin the training; nothing was started.
    TrainingError, PlatformError
        See :func:`cytoray_training.launch.launch` and :func:`cytoray_training.publish.publish`.
    """
    began = time.perf_counter()
    plan = make_plan(recipe, settings)
    if recipe.data.folds is not None:
        from cytoray_training.search.folds import cross_validate  # which itself trains with what is in this module

        return cross_validate(plan, settings, on=on, fresh=fresh)
    registry = Registry.open(settings)
    with claim_run(plan, fresh=fresh) as training:
        run = registry.start_run(
            experiment=recipe.model.name,
            name=training.folder.name,
            params=recipe.model_dump(mode="json", exclude={"tune": True}),
            tags={
                "recipe": recipe_hash(recipe),
                "data": plan.dataset_hash,
                "code": code_version(),
                **training.tags,
            },
            run_id=training.run_id,
            keep=training.folder / KEPT,
        )
        with run, diagnosed_on_failure(training.folder, run), ProgressBar(recipe.training.epochs) as bar:
            training = training.noting(run_id=run.run_id)
            checkpoint = launch(plan, training.folder, on=on, listen=listener(run, bar))
            bar.say("registering")
            published = publish(plan, checkpoint, training.folder, run, registry)
            training.noting(finished=published.version is not None)
    return {
        "model": recipe.model.name,
        "version": published.version.version if published.version else None,
        "run_id": run.run_id,
        "bundle": str(published.bundle.folder),
        "metrics": published.evaluation.metrics,
        "intervals": {name: described(one) for name, one in published.evaluation.intervals.items()},
        "metrics_are": CHOSEN_BY,
        "seconds": round(time.perf_counter() - began, 1),
    }


def listener(run: Run, bar: ProgressBar) -> Listener:
    """Return what shows the lines of a progress file and records the epochs among them."""

    def listen(facts: Mapping[str, Any]) -> None:
        bar.show(facts)
        if facts["stage"] == "epoch":
            numbers = {name: value for name, value in facts.items() if name not in ("stage", "epoch")}
            run.log_metrics(numbers, step=int(facts["epoch"]))

    return listen


def make_plan(recipe: Recipe, settings: Settings) -> Plan:
    """Check all that can be checked before a worker starts.

    Raises
    ------
    RecipeError
        Network or task cannot be built as the recipe says.
    DatasetError
        The data would ruin the training; the message names the first file, and how many more there are.
    """
    require_each(recipe)
    checked = check_data(recipe, code=code_version())
    dataset = _passed(checked).share(recipe.training.label_share, seed=recipe.training.seed)
    start = None if recipe.model.start is None else find_start(recipe.model.start, recipe.model.network.name, settings)
    warnings = tuple(summed_up(checked.findings))
    decided = checked.decided or {}
    plan = Plan(recipe, dataset, hash_dataset(dataset), decided, settings.home, start, settings.cache_folder, warnings)
    require_fitting(plan)
    return plan


def summed_up(findings: Sequence[Finding]) -> list[str]:
    """Return the warnings among findings, each kind once with the first of the files that it is about."""
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.severity == "warning":
            found.setdefault(finding.code, []).append(finding)
    lines = []
    for code, members in found.items():
        first = members[0]
        files = first.file if len(members) == 1 else f"{len(members)} files, such as {first.file}"
        lines.append(f"{files}: {first.problem}. {first.remedy} [{code}]")
    return lines


def _passed(checked: CheckedData) -> Dataset:
    """Say what is worth a warning, and return the data unless a finding is an error."""
    errors = [finding for finding in checked.findings if finding.severity == "error"]
    for warning in summed_up(checked.findings):
        print(f"warning: {warning}", file=sys.stderr)
    if errors:
        first = errors[0]
        more = f" ({len(errors) - 1} more: see cytoray data check)" if len(errors) > 1 else ""
        where = "" if first.file == "." else f"{first.file}: "
        raise DatasetError(f"{where}{first.problem}{more}", field="data.root", hint=first.remedy)
    if checked.dataset is None:
        raise DatasetError("expected a data set, got none", field="data.root")
    return checked.dataset
