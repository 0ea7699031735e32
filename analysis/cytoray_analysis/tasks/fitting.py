"""Fit decode parameters on validation data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.tasks.protocol import Task


def fit_decode(
    task: Task,
    outputs: Sequence[NDArray[np.float32]],
    truths: Sequence[NDArray[Any]],
    *,
    rounds: int = 2,
    objective: Callable[[dict[str, float]], float] | None = None,
) -> dict[str, float]:
    """Choose decode parameters by coordinate search over the task's candidates.

    Parameters
    ----------
    outputs
        Dense outputs of validation images, (channels, spatial…) each.
    truths
        Their truths.
    rounds
        Sweeps over all parameters; the search ends early when a sweep changes nothing.
    objective
        What to maximise, given the metrics; their mean by default, so that no single threshold is favoured.

    Returns
    -------
    dict
        A value per parameter; the default where nothing scores higher.
    """
    objective = objective or (lambda metrics: float(np.mean(list(metrics.values()))))

    def value(parameters: dict[str, float]) -> float:
        answers = [task.decode(output, parameters).values for output in outputs]
        return objective(task.score(answers, truths))

    best = task.output.defaults()
    best_value = value(best)
    for _ in range(rounds):
        before = dict(best)
        for name, candidates in task.output.candidates.items():
            for candidate in candidates:
                if candidate == best[name]:
                    continue
                trial = best | {name: candidate}
                trial_value = value(trial)
                if trial_value > best_value:
                    best, best_value = trial, trial_value
        if best == before:
            break
    return best
