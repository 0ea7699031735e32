"""The expected cost of several training runs: their number, workers, and approximate time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cytoray_analysis.plural import counted
from cytoray_training.recipe import Recipe

_UNKNOWN = "time: unknown until the first has ended"


@dataclass(frozen=True)
class Cost:
    """The training runs of a study, before and during execution.

    Attributes
    ----------
    kind
        Kind of study, such as ``search``.
    recipe
        Of each training run, apart from what a search varies.
    runs
        Number of runs; None: as many as the hours allow.
    max_concurrent
        Maximum number of concurrent runs.
    confirming
        Maximum number of further runs, which start one after the other at the end.
    last
        Recipe of one more run, which starts after all others; None for none.
    hours
        Time limit of all runs except the last; None for no limit.
    fewer
        Whether training runs may be stopped early, so the time is an upper bound.
    """

    kind: str
    recipe: Recipe
    runs: int | None
    max_concurrent: int = 1
    confirming: int = 0
    last: Recipe | None = None
    hours: float | None = None
    fewer: bool = False

    def before(self, ended: int, spent: float, measured: Sequence[tuple[int, float]]) -> str:
        """Return the line that is printed before anything starts.

        Parameters
        ----------
        ended
            Number of training runs that ended before an interruption.
        spent
            Seconds spent before an interruption.
        measured
            Epochs and seconds of each completed training run.
        """
        number = "as many training runs as the hours allow" if self.runs is None else _runs(self.runs)
        if self.confirming:
            number += f", up to {self.confirming} more to compare the best with the unchanged recipe"
        if self.last is not None:
            number += " and one more with the best settings"
        scale = self.recipe.scale
        workers, gpus = self.max_concurrent * scale.workers, self.max_concurrent * scale.workers * scale.gpus_per_worker
        on = f"{self.max_concurrent} at a time on {counted(workers, 'worker')} in all"
        on += f" with {counted(gpus, 'GPU')}" if gpus else ""
        done = f", of which {ended} {'has' if ended == 1 else 'have'} already ended" if ended else ""
        return f"{self.kind}: {number}{done}, {on}; {self._time(ended, spent, measured)}"

    def after(self, ended: int, spent: float, measured: Sequence[tuple[int, float]]) -> str:
        """Return the line that is printed after each training run; see :meth:`before`."""
        of = "" if self.runs is None else f" of {self._all(self.runs)}"
        return f"{self.kind}: {ended}{of} training runs have ended; {self._time(ended, spent, measured)}"

    def is_over(self, ended: int) -> bool:
        """Whether all training runs have ended."""
        return self.runs is not None and ended >= self._all(self.runs)

    def _all(self, runs: int) -> int:
        return runs + self.confirming + (self.last is not None)

    def _time(self, ended: int, spent: float, measured: Sequence[tuple[int, float]]) -> str:
        limit = None if self.hours is None else max(0.0, self.hours * 3600 - spent)
        one = seconds_of(self.recipe, measured)
        left = None if self.runs is None else max(0, self.runs - ended)
        all_others = None if one is None or left is None else math.ceil(left / self.max_concurrent) * one
        bounded = [seconds for seconds in (all_others, limit) if seconds is not None]
        confirmed = 0 if self.runs is None else max(0, ended - self.runs)
        confirming = 0.0 if not self.confirming else None if one is None else max(0, self.confirming - confirmed) * one
        last = 0.0 if self.last is None else seconds_of(self.last, measured)
        if not bounded or last is None or confirming is None:
            return _UNKNOWN
        at_most = "at most " if self.fewer or self.confirming or limit in bounded else ""
        return f"time: {at_most}about {_duration(min(bounded) + confirming + last)}"


def seconds_of(recipe: Recipe, measured: Sequence[tuple[int, float]]) -> float | None:
    """Return the approximate seconds of a training run: its epochs at the measured speed, or its ``minutes``.

    Parameters
    ----------
    measured
        Epochs and seconds of each completed training run.
    """
    epochs, seconds = sum(one for one, _ in measured), sum(one for _, one in measured)
    training = recipe.training
    known = [] if training.minutes is None else [60 * training.minutes]
    known += [training.epochs * seconds / epochs] if epochs else []
    return min(known, default=None)


def _runs(number: int) -> str:
    return f"{number} training run{'s' if number > 1 else ''}"


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes // 60:.0f} h {minutes % 60:.0f} min"
