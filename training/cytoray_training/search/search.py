"""A search from end to end: trials, the best of them compared with the unchanged recipe and registered, a report."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import Any

from cytoray_analysis.errors import TrainingError
from cytoray_services.settings import Settings
from cytoray_training.plan.planning import make_plan
from cytoray_training.publish.publish import CHOSEN_BY
from cytoray_training.recipe import Recipe, changed_recipe
from cytoray_training.run.clusters import cluster
from cytoray_training.search.cost import Cost
from cytoray_training.search.judging import Judgement, confirmations, judge, judged_plan, scores_on_test
from cytoray_training.search.population import require_mutable
from cytoray_training.search.report import write_report
from cytoray_training.search.space import parse_space
from cytoray_training.search.study import Member, Study, open_study
from cytoray_training.search.trials import Trials
from cytoray_training.search.tuning import run_trials

# A larger budget is the same study.
_BUDGET = {"trials", "hours", "concurrent", "confirm"}
FINAL = "final"


def run_search(recipe: Recipe, settings: Settings, *, on: str = "local", fresh: bool = False) -> dict[str, Any]:
    """Try recipes as defined in the section ``tune``, continue an interrupted search, and register the best model.

    The first trial is the unchanged recipe. The best of the completed trials gives its weights to the model; with
    ``tune.refit`` it is trained once more with those fields changed. Images that chose nothing decide whether it is
    better than the unchanged recipe; see :func:`cytoray_training.search.judging.judge`.

    Returns
    -------
    dict
        ``{model, version, run_id, bundle, metrics, metrics_are, test, seconds, study, report, comparison, best,
        trials}``, where ``test`` is ``{metric: {score, low, high, units}}`` of the registered model on images that
        chose nothing (empty without such images), ``comparison`` has ``verdict``, ``gain``, ``low`` and ``high``, or
        the ``reason`` without a comparison, ``best`` is ``{name, values, selection_METRIC}`` and ``trials`` has one
        ``{name, state, epochs, selection_METRIC, values, reason}`` each.

    Raises
    ------
    RecipeError, DatasetError
        The recipe, its space or the data would make the search useless; nothing was started.
    TrainingError, PlatformError
        No trial reached a validation, or a service failed.
    """
    began = time.perf_counter()
    space = parse_space(recipe)
    tune = recipe.tune
    assert tune is not None  # noqa: S101 - parse_space has checked it
    if tune.searcher == "population":
        require_mutable(space)
    final = {} if tune.refit is None else tune.refit
    refitted = changed_recipe(recipe, final)
    plan = judged_plan(make_plan(recipe.model_copy(update={"tune": None}), settings), tune)
    metric = plan.metric
    wanted = tune.model_dump(mode="json", exclude=_BUDGET)
    wanted["space"] = {path: asdict(parameter) for path, parameter in space.items()}  # as parsed, not as written
    cost = Cost(
        "search",
        recipe,
        tune.trials,
        tune.concurrent,
        confirming=confirmations(plan, tune),
        last=None if tune.refit is None else refitted,
        hours=tune.hours,
        fewer=tune.asha is not None or tune.searcher == "population",
    )
    with open_study("search", plan, settings, wanted=wanted, cost=cost, fresh=fresh) as study:
        trials = Trials(study, plan, tune, space, metric)
        with cluster(recipe.scale, on, runs=tune.concurrent, reclaiming=True):
            run_trials(trials)
            best = trials.best()
            if best is None:
                failures = [member.reason for member in trials.members if member.reason]
                raise TrainingError(
                    "expected at least one trial with a validation, found "
                    f"none{f'; the first reports: {failures[0]}' if failures else ''}",
                    hint="check whether cytoray train works with this recipe",
                )
            judgement = judge(study, trials, best, on)
            member = _final(study, trials, best, on, judgement)
            tested = scores_on_test(plan, member.facts["bundle"])
        print(judgement.sentence, file=sys.stderr, flush=True)
        report = write_report(study, trials, best, member, judgement, tested)
    return {
        "model": recipe.model.name,
        "version": member.facts["version"],
        "run_id": member.run_id,
        "bundle": member.facts["bundle"],
        "metrics": member.facts["metrics"],
        "metrics_are": CHOSEN_BY,
        "test": tested,
        "seconds": round(time.perf_counter() - began, 1),
        "study": str(study.folder),
        "search_run_id": study.run.run_id,
        "report": str(report),
        "comparison": judgement.described() | {"says": judgement.sentence},
        "best": {"name": best.name, "values": best.values, f"selection_{metric}": best.best(metric)},
        "trials": [
            {
                "name": one.name,
                "state": one.state,
                "epochs": one.epochs,
                f"selection_{metric}": one.best(metric),
                "values": one.values,
                "reason": one.reason,
            }
            for one in trials.members
        ],
    }


def _final(study: Study, trials: Trials, best: Member, on: str, judgement: Judgement) -> Member:
    """Register the best model: its own weights, or those of a training run with the fields of ``tune.refit``."""
    facts = {"search": study.run.run_id, "trial": best.name, "comparison": judgement.sentence}
    tune = trials.tune
    if tune.refit is None:
        return study.train(best.name, trials.plan_for(best.values), on=on, register=facts)
    plan = trials.plan_for(best.values).changed(tune.refit)
    return study.train(FINAL, plan, on=on, values={**best.values, **tune.refit}, register=facts)
