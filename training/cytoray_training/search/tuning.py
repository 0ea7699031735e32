"""The only module that uses Ray Tune: concurrent trials, each a training run, with early stopping.

Tune runs the trials. Its own persistence is not used: ``Tuner.restore`` uses snapshots that are at least ten seconds
old, so a trial that has ended since then is repeated, a function that starts a trainer starts again without its
checkpoint, and searcher and scheduler are restored from pickles. Here all state comes from the records of
:mod:`cytoray_training.search.study`, which are written with every validation; they also decide when a trial is stopped.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from typing import Any

from cytoray_analysis.errors import CytorayError, PlatformError, TrainingError
from cytoray_training.run.stopping import saved_when_stopped
from cytoray_training.search import halving, population
from cytoray_training.search.trial import SAVED, train_trial
from cytoray_training.search.trials import Trials

# A process that only waits for its training run needs no core, but Tune has no empty request. All clusters have this.
_SEAT = {"node:__internal_head__": 0.001}


def run_trials(trials: Trials) -> None:
    """Run trials until the budget is spent. Ray must be running.

    Raises
    ------
    PlatformError
        A trial failed for another reason than its recipe. It stays open.
    TrainingError
        Tune ended early.
    StoppedError
        This process received a termination signal; the trials have saved their state.
    """
    if trials.seconds_left == 0.0:
        _end_all(trials)
    if trials.exhausted:
        return
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C ends the command; the records are written
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    from ray import tune

    logging.getLogger("ray.tune.execution.tune_controller").addFilter(_is_unexplained)
    with tempfile.TemporaryDirectory(prefix="cytoray-tune-") as scratch:
        trainable = tune.with_parameters(
            train_trial,
            plan=trials.plan,
            folder=str(trials.study.folder),
            metric=trials.metric,
            keep=trials.tune.population.interval if trials.tune.searcher == "population" else 0,
        )
        tuner = tune.Tuner(
            tune.with_resources(trainable, tune.PlacementGroupFactory([_SEAT])),
            tune_config=tune.TuneConfig(
                metric="score",  # transformed so that more is better
                mode="max",
                num_samples=-1,
                search_alg=_searcher(trials),
                scheduler=_scheduler(trials),
                max_concurrent_trials=trials.tune.concurrent,
                time_budget_s=trials.seconds_left,
            ),
            run_config=tune.RunConfig(
                storage_path=scratch,
                name="search",
                verbose=0,
                # A dead process or a platform failure does not count against the recipe: the trial is retried.
                failure_config=tune.FailureConfig(max_failures=trials.plan.recipe.scale.max_failures),
            ),
        )
        try:
            with saved_when_stopped(
                trials.study.folder, may_save=lambda: bool(trials.at_work), saved=lambda: _saved(trials)
            ):
                tuner.fit()
        except tune.TuneError as error:
            # Tune wraps errors of its callbacks, such as an unavailable registry.
            if isinstance(error.__context__, CytorayError):
                raise error.__context__ from error
            raise
    if trials.seconds_left == 0.0:
        _end_all(trials)
    if trials.left_open is not None and not trials.exhausted:
        name, reason = trials.left_open
        raise PlatformError(
            f"{name} failed: {reason}",
            hint="correct this and run the same command again to continue the search; it does not count against the "
            "recipe, so the trial stays open",
        )
    if not trials.exhausted:
        raise TrainingError(
            "the search stopped before its budget was spent",
            hint="run the same command again to continue it",
        )


def _is_unexplained(record: logging.LogRecord) -> bool:
    """Filter Tune's log: an error that no trial has reported becomes one line without traceback."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(getattr(error, "cause", error), CytorayError)


def _saved(trials: Trials) -> bool:
    """Whether every running trial has saved its state."""
    return all((trials.study.folder / name / SAVED).exists() for name in trials.at_work)


def _end_all(trials: Trials) -> None:
    for member in trials.members:
        if member.state == "running":
            trials.end(member.name, "stopped", "the time budget of the search is spent")


def _searcher(trials: Trials) -> Any:
    from ray.tune.search import Searcher

    class Suggestions(Searcher):
        """Gives Tune the next recipe."""

        def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
            return True

        def suggest(self, trial_id: str) -> Any:
            if trials.exhausted or trials.left_open is not None:
                return Searcher.FINISHED
            member = trials.next()
            return None if member is None else {"name": member.name, "values": member.values}

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            """Do nothing: the scheduler records everything."""

        def save(self, checkpoint_path: str) -> None:
            """Do nothing: see the docstring of this module."""

        def restore(self, checkpoint_path: str) -> None:
            """Nothing."""

    return Suggestions()


def _scheduler(trials: Trials) -> Any:
    from ray.tune.schedulers import FIFOScheduler, TrialScheduler

    asha = trials.tune.asha
    rungs = [] if asha is None else halving.rungs_of(asha, trials.plan.recipe.training)

    class Judge(FIFOScheduler):
        """Records every result, and stops hopeless trials."""

        def set_search_properties(self, metric: Any, mode: Any, **spec: Any) -> bool:
            return True

        def on_trial_result(self, tune_controller: Any, trial: Any, result: Any) -> Any:
            name = trial.config["name"]
            if "fault" in result:
                trials.note_fault(name, result["fault"])
            elif "failed" in result:
                trials.end(name, "failed", result["failed"])
            elif "finished" in result:
                trials.end(name, "completed")
            else:
                member = trials.report(name, json.loads(result["scores"]))
                stop, reason = False, ""
                if trials.tune.searcher == "population":
                    stop = population.is_replaced(member, trials.members, trials.tune, trials.metric)
                    reason = "among the worst of its population"
                elif asha is not None:
                    stop = halving.is_behind(member, trials.members, rungs, asha.reduction, trials.metric)
                    reason = "behind the others at the same position of the schedule"
                if stop and result["progress"] < 1:
                    trials.end(name, "stopped", reason)
                    return TrialScheduler.STOP
            return TrialScheduler.CONTINUE

        def on_trial_complete(self, tune_controller: Any, trial: Any, result: Any) -> None:
            trials.end(trial.config["name"], "completed")

        def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
            trials.leave_open(trial.config["name"])

    return Judge()  # type: ignore[no-untyped-call]
