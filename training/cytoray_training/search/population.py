"""Population-based training (Jaderberg et al. 2017, arXiv:1711.09846), asynchronous, over recorded trials.

A member that is among the worst at a comparison is stopped. A new trial takes its place: it continues from the
checkpoint that one of the best had at the same epoch, with its settings multiplied or divided by a factor. Because the
replacement is a *new* trial, every record is final, and a population can be larger than the number of concurrent
trials: a member is compared with all trials that ever reached its epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cytoray_analysis.errors import RecipeError
from cytoray_training.recipe import Tune
from cytoray_training.search.space import Choice, Range, Space
from cytoray_training.search.study import Member

# Fields that can change during a training run.
MUTABLE: tuple[str, ...] = ("augmentation.", "data.balance")
MUTABLE += ("training.learning_rate", "training.weight_decay", "training.gradient_clip", "training.ema_decay")


def require_mutable(space: Space) -> None:
    """Raise RecipeError for a field that cannot change during a training run."""
    for path in space:
        if not path.startswith(MUTABLE):
            raise RecipeError(
                f"expected a field that can change during a training run for the searcher `population`, got {path!r}",
                field=f"tune.space.{path}",
                hint="use searcher: optuna, or only augmentation, data.balance, learning rate, weight decay, "
                "gradient clipping and ema_decay",
            )


def compares(member: Member, tune: Tune) -> int | None:
    """Return the epoch at which a member must be compared now, or None.

    Epochs taken over from another member are not compared again.
    """
    interval = tune.population.interval
    taken = int(member.facts.get("epoch", 0))
    rounds = member.epochs // interval
    previous = int(member.scores[-2]["epoch"]) // interval if len(member.scores) > 1 else 0
    return member.epochs if rounds > previous and member.epochs > taken else None


def is_replaced(member: Member, members: Sequence[Member], tune: Tune, metric: str) -> bool:
    """Whether a member's newest score is among the worst of all that reached its epoch."""
    epoch = compares(member, tune)
    own = None if epoch is None else member.at(metric, epoch)
    if epoch is None or own is None:
        return False
    scores = [score for one in members if (score := one.at(metric, epoch)) is not None]
    return sum(score < own for score in scores) < int(tune.population.share * len(scores)) and own < max(scores)


def successor(
    members: Sequence[Member],
    tune: Tune,
    space: Space,
    metric: str,
    values: Mapping[str, Mapping[str, Any]],
    kept: Callable[[str, int], bool],
) -> tuple[Member, int, Member, dict[str, Any]] | None:
    """Return source, epoch, replaced member and values of a new trial; None if none is needed.

    Parameters
    ----------
    members
        All trials so far.
    tune
        The recipe's section.
    space
        What is varied.
    metric
        The score that chooses.
    values
        All values of each trial in the space.
    kept
        Whether a checkpoint of a trial at an epoch exists.
    """
    replaced = {member.facts.get("instead_of") for member in members}
    waiting = [member for member in members if member.state in ("stopped", "failed") and member.name not in replaced]
    for gone in waiting:
        epoch = gone.epochs // tune.population.interval * tune.population.interval
        rivals = [
            (score, one)
            for one in members
            if one.name != gone.name and one.name in values and (score := one.at(metric, epoch)) is not None
            if kept(one.name, epoch)
        ]
        if not rivals:
            continue
        rivals.sort(key=lambda rival: -rival[0])
        best = rivals[: max(1, int(tune.population.share * len(rivals)))]
        chance = np.random.default_rng((tune.seed, len(members)))
        source = best[int(chance.integers(len(best)))][1]
        return source, epoch, gone, perturbed(space, values[source.name], tune.population.factor, chance)
    return None


def perturbed(space: Space, values: Mapping[str, Any], factor: float, chance: np.random.Generator) -> dict[str, Any]:
    """Return values near others: numbers times or divided by a factor, within the space; neighbours of choices."""
    found = {}
    for path, parameter in space.items():
        up = bool(chance.integers(2))
        if isinstance(parameter, Choice):
            place = (parameter.place(values[path]) or 0) + (1 if up else -1)
            found[path] = parameter.values[min(max(place, 0), len(parameter.values) - 1)]
        else:
            found[path] = _scaled(parameter, values[path], factor if up else 1 / factor)
    return found


def _scaled(parameter: Range, value: float, factor: float) -> float | int:
    moved = min(max(value * factor, parameter.low), parameter.high)
    return round(moved) if parameter.whole else moved
