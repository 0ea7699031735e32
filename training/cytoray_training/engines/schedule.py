"""The learning rate as a function of progress: completed steps or elapsed time, whichever is larger."""

from __future__ import annotations

import math

FLOOR = 0.01


def progress_of(step: int, total_steps: int, elapsed: float, minutes: float | None) -> float:
    """Return the completed share of the training run, 0 to 1.

    Parameters
    ----------
    step, total_steps
        Completed and planned optimizer steps.
    elapsed
        Seconds spent training, including before interruptions.
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
        Completed share of the training run, 0 to 1.
    peak
        Highest learning rate.
    warmup
        Share of the training run spent warming up, 0 to below 1.
    """
    if progress < warmup:
        return peak * (FLOOR + (1 - FLOOR) * progress / warmup)
    fraction = (progress - warmup) / (1 - warmup)
    return peak * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * fraction)))
