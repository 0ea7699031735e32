"""One training run from end to end: check the data, train, publish."""

from __future__ import annotations

import time
from typing import Any

from cytoray_services.registry import KEPT, Registry
from cytoray_services.settings import Settings
from cytoray_services.statistics.intervals import described
from cytoray_training.diagnosis.diagnose import diagnosed_on_failure
from cytoray_training.plan.planning import make_plan
from cytoray_training.publish.publish import CHOSEN_BY, publish
from cytoray_training.recipe import Recipe
from cytoray_training.run.launch import launch
from cytoray_training.run.progress_bar import ProgressBar, listener
from cytoray_training.run.runs import claim_run, start_run
from cytoray_training.search.folds import cross_validate


def run_training(recipe: Recipe, settings: Settings, *, on: str = "local", fresh: bool = False) -> dict[str, Any]:
    """Train a recipe, continue an interrupted training run, and register the model.

    A recipe with ``data.folds`` is cross-validated first; see :func:`cytoray_training.search.folds.cross_validate`.

    Returns
    -------
    dict
        ``{model, version, run_id, bundle, metrics, metrics_are, seconds}``, and ``cross_validation``, ``units`` and
        ``unit`` if there are folds.

    Raises
    ------
    RecipeError, DatasetError
        The recipe or the data would make the training run useless; nothing was started.
    TrainingError, PlatformError
        See :func:`cytoray_training.run.launch.launch` and :func:`cytoray_training.publish.publish.publish`.
    """
    began = time.perf_counter()
    plan = make_plan(recipe, settings)
    if recipe.data.folds is not None:
        return cross_validate(plan, settings, on=on, fresh=fresh)
    registry = Registry.open(settings)
    with claim_run(plan, fresh=fresh) as training:
        name, kept = training.folder.name, training.folder / KEPT
        run = start_run(registry, plan, name, training.run_id, training.tags, keep=kept)
        with run, diagnosed_on_failure(training.folder, run), ProgressBar(recipe.training.epochs, plan.metric) as bar:
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
