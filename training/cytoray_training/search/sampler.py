"""Which recipe is tried next, and the importance of parameters; the only module that uses Optuna.

A suggestion is a pure function of the records, the number of the trial and the seed, so a killed search continues as if
it had not been killed: only the records must survive.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cytoray_training.search.space import Choice, Space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study

# TPE needs at least this many; its authors start with 10 of about 100 trials.
_RANDOM_FIRST = 4


@dataclass(frozen=True)
class Tried:
    """A trial as the sampler uses it.

    Attributes
    ----------
    places
        Its position in the space; see :func:`cytoray_training.search.space.place_of`.
    steps
        Score, transformed so that more is better, by the completed percentage of the schedule.
    state
        ``completed``, ``running``, or ``stopped``, which includes failed: without a score it is the worst.
    """

    places: Mapping[str, float | int]
    steps: Mapping[int, float]
    state: str


def suggest(space: Space, tried: Sequence[Tried], *, searcher: str, seed: int, number: int) -> dict[str, Any]:
    """Return the values to try, by dotted path.

    Parameters
    ----------
    space
        The parameters that may vary.
    tried
        All trials so far. Running ones count as bad, so that two concurrent trials do not try the same values.
    searcher
        ``random``, or ``optuna``: the tree-structured Parzen estimator (Bergstra et al. 2011; with trials that were
        stopped early behind those that were completed, as in Optuna).
    seed, number
        Of the search and of this trial; they alone determine the random numbers.
    """
    import optuna

    words = np.random.SeedSequence((seed, number)).generate_state(1)
    chance = int(words[0])
    if searcher == "random":
        sampler: Any = optuna.samplers.RandomSampler(seed=chance)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                seed=chance, n_startup_trials=_RANDOM_FIRST, multivariate=True, constant_liar=True
            )
    study = _study(space, tried, sampler)
    asked = study.ask(_distributions(space)).params
    return {path: parameter.value(asked[path]) for path, parameter in space.items()}


def importances(space: Space, places: Sequence[Mapping[str, float | int]], scores: Sequence[float]) -> dict[str, float]:
    """Return the share of each parameter in the variance of the score, largest first; empty for too few trials.

    Functional ANOVA of a random forest (Hutter, Hoos, Leyton-Brown 2014), as Optuna computes it.
    """
    import optuna

    distinct = {tuple(sorted(one.items())) for one in places}
    if len(distinct) < 4 or float(np.ptp(np.asarray(scores))) == 0.0:
        return {}
    tried = [Tried(place, {1: score}, "completed") for place, score in zip(places, scores, strict=True)]
    study = _study(space, tried, optuna.samplers.RandomSampler(seed=0))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=list(space))
    return {path: float(share) for path, share in sorted(found.items(), key=lambda entry: -entry[1])}


def _study(space: Space, tried: Sequence[Tried], sampler: Any) -> Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    states = optuna.trial.TrialState
    kinds = {"completed": states.COMPLETE, "stopped": states.PRUNED, "running": states.RUNNING}
    distributions = _distributions(space)
    for one in tried:
        # A trial that ended without a validation is as bad as one that failed.
        state = kinds[one.state if one.steps or one.state == "running" else "stopped"]
        study.add_trial(
            optuna.trial.create_trial(
                state=state,
                params=dict(one.places),
                distributions=distributions,
                intermediate_values=dict(one.steps),
                value=max(one.steps.values()) if state == states.COMPLETE else None,
            )
        )
    return study


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, BaseDistribution] = {}
    for path, parameter in space.items():
        if isinstance(parameter, Choice):
            found[path] = CategoricalDistribution(range(len(parameter.values)))
        elif parameter.whole:
            found[path] = IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
        else:
            found[path] = FloatDistribution(parameter.low, parameter.high, log=parameter.log)
    return found
