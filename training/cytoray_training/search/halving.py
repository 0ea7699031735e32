"""When a trial is stopped: asynchronous successive halving (ASHA, Li et al. 2020, arXiv:1810.05934), over records.

Trials are compared at the same relative position of their schedules: a lower learning rate improves the score, so at
the same epoch a trial with a short schedule would seem better than one with a long schedule. A rung is a share of the
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
        found.append(math.floor(rung * 1e9) / 1e9)  # 3 × 0.1 is above 3/10
        rung *= wanted.reduction
    return found


def is_behind(member: Member, members: Sequence[Member], rungs: Sequence[float], reduction: float, metric: str) -> bool:
    """Whether a trial, with its newest validation, is not among the best of all trials that reached the same rung.

    Parameters
    ----------
    member, members
        The trial, and all trials so far.
    rungs
        See :func:`rungs_of`.
    reduction
        One of this many trials continues.
    metric
        The score that chooses.
    """
    before = member.scores[-2].get("progress", 0.0) if len(member.scores) > 1 else 0.0
    now = member.scores[-1].get("progress", 0.0)
    reached = [rung for rung in rungs if before < rung <= now]
    if not reached or now >= 1:  # a completed trial cannot be stopped
        return False
    found = {one.name: one.after(metric, reached[-1]) for one in members}
    own = found.pop(member.name)
    others = [score for score in found.values() if score is not None]
    return own is not None and bool(others) and own < float(np.percentile(others, 100 * (1 - 1 / reduction)))
