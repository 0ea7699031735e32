"""The learning rate as a function of progress, where progress is steps done or time spent, whichever is further."""

from __future__ import annotations

import math

FLOOR = 0.01


def progress_of(step: int, total_steps: int, elapsed: float, minutes: float | None) -> float:
    """Return how much of the training is done, 0 to 1.

    Parameters
    ----------
    step, total_steps
        Optimizer steps done and planned.
    elapsed
        Seconds spent training, interrupted spells included.
    minutes
        Wall-clock budget, or None. With a budget the schedule reaches its end in time on any machine.
    """
    done = step / total_steps
    if minutes is not None:
        done = max(done, elapsed / (60.0 * minutes))
    return min(1.0, done)


def learning_rate_at(progress: float, peak: float, warmup: float) -> float:
    """Return the learning rate: linear warm-up, then a cosine down to 1 % of the peak (arXiv:1608.03983).

    Parameters
    ----------
    progress
        Share of the training that is done, 0 to 1.
    peak
        Highest learning rate.
    warmup
        Share of the training spent warming up, 0 to below 1.
    """
    if progress < warmup:
        return peak * (FLOOR + (1 - FLOOR) * progress / warmup)
    fraction = (progress - warmup) / (1 - warmup)
    return peak * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * fraction)))
