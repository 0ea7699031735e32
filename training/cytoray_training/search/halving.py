"""When a trial is given up: asynchronous successive halving (ASHA, Li et al. 2020, arXiv:1810.05934), over records.

Trials are compared at like places of their schedules: a learning rate that has come down makes a score better, so that
after as many epochs a trial with a short schedule would seem better than one with a long one. A rung is a share of the
schedule, and a score there that of :meth:`~cytoray_training.search.study.Member.after`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cytoray_training.recipe import Halving, Training
from cytoray_training.search.study import Member


def rungs_of(wanted: Halving, training: Training) -> list[float]:
    """Return the shares of a schedule at which trials are compared, ascending; none at its end."""
    rung = (wanted.grace or training.validate_every) / training.epochs
    found = []
    while rung < 1 - 0.5 / training.epochs:
        found.append(math.floor(rung * 1e9) / 1e9)  # 3 × 0.1 lies above 3/10
        rung *= wanted.reduction
    return found


def is_behind(member: Member, members: Sequence[Member], rungs: Sequence[float], reduction: float, metric: str) -> bool:
    """Whether a trial, with its newest validation, is not among the best of all that came to the rung it has reached.

    Parameters
    ----------
    member, members
        The trial, and all trials so far.
    rungs
        See :func:`rungs_of`.
    reduction
        Of so many trials one goes on.
    metric
        The score that chooses.
    """
    before = member.scores[-2].get("progress", 0.0) if len(member.scores) > 1 else 0.0
    now = member.scores[-1].get("progress", 0.0)
    reached = [rung for rung in rungs if before < rung <= now]
    if not reached or now >= 1:  # after its end nothing is left to stop
        return False
    found = {one.name: one.after(metric, reached[-1]) for one in members}
    own = found.pop(member.name)
    others = [score for score in found.values() if score is not None]
    return own is not None and bool(others) and own < float(np.percentile(others, 100 * (1 - 1 / reduction)))
