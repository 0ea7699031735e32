"""Fit decode parameters on validation data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cytoray_analysis.tasks.protocol import Task


def fit_decode(
    task: Task,
    outputs: Sequence[Any],
    truths: Sequence[Any],
    kinds: Sequence[str] = (),
    *,
    begin: Mapping[str, float] | None = None,
    rounds: int = 3,
) -> dict[str, float]:
    """Choose decode parameters by coordinate search over the task's candidates.

    Parameters
    ----------
    task
        It says what is maximised: :attr:`~cytoray_analysis.tasks.protocol.Output.objective`.
    outputs
        Outputs of the network for validation items, as the task's ``decode`` takes them.
    truths
        Their truths.
    kinds
        The kind of each item; each kind counts as much as every other. Empty: all items together.
    begin
        Values to begin with, such as those of the model that training started from.
    rounds
        Sweeps over all parameters; the search ends early when a sweep changes nothing.

    Returns
    -------
    dict
        A value per parameter; the one it begins with where none is better by the task's ``gain``.
    """
    names = list(kinds) or [""] * len(outputs)
    parts = [[at for at, kind in enumerate(names) if kind == one] for one in dict.fromkeys(names)]

    def value(parameters: dict[str, float]) -> float:
        answers = [task.decode(output, parameters).values for output in outputs]
        by_kind = [_value(task, [answers[at] for at in part], [truths[at] for at in part]) for part in parts]
        return float(np.mean(by_kind)) if by_kind else 0.0

    best = task.output.completed(begin or {})
    best_value = value(best)
    for _ in range(rounds):
        before = dict(best)
        for name, candidates in task.output.candidates.items():
            for candidate in candidates:
                if candidate == best[name]:
                    continue
                trial = best | {name: candidate}
                trial_value = value(trial)
                if trial_value > best_value + task.output.gain:
                    best, best_value = trial, trial_value
        if best == before:
            break
    if task.output.calibration is not None:
        best |= task.output.calibration([task.decode(output, best) for output in outputs], truths)
    return best


def _value(task: Task, answers: Sequence[Any], truths: Sequence[Any]) -> float:
    if task.output.objective is not None:
        return task.output.objective(answers, truths)
    scores = list(task.score(answers, truths).values())
    return float(np.mean(scores)) if scores else 0.0
