"""One training from end to end: check the data, train, publish."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from cytoray_analysis.errors import DatasetError, RecipeError
from cytoray_services.datasets import (
    Finding,
    check_dataset,
    hash_dataset,
    task_arguments,
)
from cytoray_services.registry import KEPT, Registry, Run
from cytoray_services.settings import Settings
from cytoray_training.diagnosis.diagnose import diagnosed_on_failure
from cytoray_training.dimensions import require_fitting
from cytoray_training.launch import Listener, launch
from cytoray_training.plan import Plan, data_source
from cytoray_training.progress_bar import ProgressBar
from cytoray_training.publish import code_version, publish
from cytoray_training.recipe import Recipe, recipe_hash
from cytoray_training.runs import claim_run
from cytoray_training.transfer import find_start


def run_training(recipe: Recipe, settings: Settings, *, on: str = "local", fresh: bool = False) -> dict[str, Any]:
    """Train as the recipe says, going on with an interrupted training, and register the model.

    A recipe with ``data.folds`` is cross-validated first; see :func:`cytoray_training.search.folds.cross_validate`.

    Returns
    -------
    dict
        ``{model, version, run_id, bundle, metrics, seconds}``, and ``cross_validation`` where there are folds.

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
            tags={"recipe": recipe_hash(recipe), "data": plan.dataset_hash, "code": code_version()},
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
        "metrics": published.metrics,
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
    dataset = data_source(recipe).open()
    findings = check_dataset(
        dataset,
        channels=len(recipe.data.channel_names),
        grey_as_rgb=recipe.data.grey_as_rgb,
        axes="ZYX" if recipe.data.planes else recipe.data.axes,
    )
    _refuse(findings)
    dataset = dataset.share(recipe.training.label_share, seed=recipe.training.seed)
    start = None if recipe.model.start is None else find_start(recipe.model.start, recipe.model.network.name, settings)
    decided = task_arguments(dataset)
    plan = Plan(recipe, dataset, hash_dataset(dataset), decided, settings.home, start, settings.cache_folder)
    require_fitting(plan)
    metrics = plan.task.score([], [])
    if recipe.training.metric is not None and recipe.training.metric not in metrics:
        raise RecipeError(
            f"expected one of the task's metrics ({', '.join(metrics)}), got {recipe.training.metric!r}",
            field="training.metric",
        )
    return plan


def _refuse(findings: list[Finding]) -> None:
    errors = [finding for finding in findings if finding.severity == "error"]
    for finding in findings:
        if finding.severity == "warning":
            print(f"warning: {finding.file}: {finding.problem}. {finding.remedy}", file=sys.stderr)
    if errors:
        first = errors[0]
        more = f" ({len(errors) - 1} more: see cytoray data check)" if len(errors) > 1 else ""
        raise DatasetError(f"{first.file}: {first.problem}{more}", field="data.root", hint=first.remedy)
