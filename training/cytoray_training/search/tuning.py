"""The only door to Ray Tune: trials at a time, each a training of its own, stopped early where it is hopeless.

Tune runs the trials and decides when one is given up (ASHA). What it remembers by itself is not used: its
``Tuner.restore`` goes by snapshots that are at least ten seconds old, so that a trial which ended since is repeated, a
function that starts a trainer begins again without a checkpoint of its own, and searcher and scheduler come back from
pickles. Here they are built anew from the records of :mod:`cytoray_training.search.study`, which are written with every
validation.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from typing import Any

from cytoray_analysis.errors import CytorayError, TrainingError
from cytoray_training.search import population
from cytoray_training.search.trial import train_trial
from cytoray_training.search.trials import Trials

# A process that only waits for its training asks for no core, and Tune knows no empty request. All clusters have this.
_SEAT = {"node:__internal_head__": 0.001}


def run_trials(trials: Trials) -> None:
    """Run trials until the budget is spent. Ray is up.

    Raises
    ------
    TrainingError
        Tune ended before its time.
    """
    if trials.seconds_left == 0.0:
        _end_all(trials)
    if trials.exhausted:
        return
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C ends the command; the records are written
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    from ray import tune

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
                metric="score",
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
                # A process that dies is no verdict on the recipe; what a training itself raises does not come here.
                failure_config=tune.FailureConfig(max_failures=trials.plan.recipe.scale.max_failures),
            ),
        )
        try:
            tuner.fit()
        except tune.TuneError as error:
            # Tune wraps what its callbacks raise, such as that the registry does not answer.
            if isinstance(error.__context__, CytorayError):
                raise error.__context__ from error
            raise
    if trials.seconds_left == 0.0:
        _end_all(trials)
    if not trials.exhausted:
        raise TrainingError(
            "the search stopped before its budget was spent", hint="run the same command again to go on with it"
        )


def _end_all(trials: Trials) -> None:
    for member in trials.members:
        if member.state == "running":
            trials.end(member.name, "stopped", "the hours of the search are over")


@dataclass(frozen=True)
class _Past:
    """Stands for a trial of an earlier spell before the scheduler."""

    trial_id: str


def _searcher(trials: Trials) -> Any:
    from ray.tune.search import Searcher

    class Suggestions(Searcher):
        """Hands Tune the next recipe."""

        def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
            return True

        def suggest(self, trial_id: str) -> Any:
            if trials.exhausted:
                return Searcher.FINISHED
            member = trials.next()
            return None if member is None else {"name": member.name, "values": member.values}

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            """Nothing: the scheduler takes everything down."""

        def save(self, checkpoint_path: str) -> None:
            """Nothing: see the top of this module."""

        def restore(self, checkpoint_path: str) -> None:
            """Nothing."""

    return Suggestions()


def _scheduler(trials: Trials) -> Any:
    from ray.tune.schedulers import FIFOScheduler, TrialScheduler

    halving = _halving(trials)

    class Judge(FIFOScheduler):
        """Takes every result down, and gives up what is hopeless."""

        def set_search_properties(self, metric: Any, mode: Any, **spec: Any) -> bool:
            return True

        def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
            if halving is not None:
                halving.on_trial_add(tune_controller, trial)

        def on_trial_result(self, tune_controller: Any, trial: Any, result: Any) -> Any:
            name = trial.config["name"]
            if "failed" in result:
                trials.end(name, "failed", result["failed"])
            elif "finished" in result:
                trials.end(name, "completed")
            else:
                member = trials.report(name, json.loads(result["scores"]))
                stop, reason = False, ""
                if trials.tune.searcher == "population":
                    stop = population.is_replaced(member, trials.members, trials.tune, trials.metric)
                    reason = "among the worst of its population"
                elif halving is not None:
                    verdict = halving.on_trial_result(tune_controller, trial, result)
                    stop, reason = verdict == TrialScheduler.STOP, "behind the others after as many epochs"
                if stop and member.epochs < trials.plan.recipe.training.epochs:
                    trials.end(name, "stopped", reason)
                    return TrialScheduler.STOP
            return TrialScheduler.CONTINUE

        def on_trial_complete(self, tune_controller: Any, trial: Any, result: Any) -> None:
            trials.end(trial.config["name"], "completed")

        def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
            trials.end(trial.config["name"], "failed", "its process ended again and again")

    return Judge()  # type: ignore[no-untyped-call]


def _halving(trials: Trials) -> Any:
    """Return ASHA that knows all trials of earlier spells; None where none is wanted."""
    training, wanted = trials.plan.recipe.training, trials.tune.asha
    grace = None if wanted is None else wanted.grace or training.validate_every
    if wanted is None or grace is None or grace >= training.epochs or trials.tune.searcher == "population":
        return None
    from ray.tune.schedulers import AsyncHyperBandScheduler

    halving: Any = AsyncHyperBandScheduler(
        time_attr="epoch",
        metric="score",
        mode="max",
        grace_period=grace,
        max_t=training.epochs - 1,  # after the last epoch nothing is left to stop
        reduction_factor=wanted.reduction,
        stop_last_trials=False,
    )
    for member in trials.members:
        if member.state != "running":
            halving.on_trial_add(None, _Past(member.name))
            for scores in member.scores:
                result = {"epoch": scores["epoch"], "score": scores[trials.metric]}
                halving.on_trial_result(None, _Past(member.name), result)
    return halving
