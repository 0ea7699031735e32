"""The learning rate over a training."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cytoray_training.engines.schedule import FLOOR, learning_rate_at, progress_of

shares = st.floats(0, 0.9)
progresses = st.floats(0, 1)


@given(progresses, shares)
def test_the_rate_stays_between_floor_and_peak(progress: float, warmup: float) -> None:
    assert FLOOR * 0.999 <= learning_rate_at(progress, 1.0, warmup) <= 1.0


@given(progresses, progresses, shares)
def test_the_rate_rises_in_the_warm_up_and_falls_after_it(first: float, second: float, warmup: float) -> None:
    early, late = sorted((first, second))
    rates = learning_rate_at(early, 1.0, warmup), learning_rate_at(late, 1.0, warmup)
    if late < warmup:
        assert rates[0] <= rates[1]
    if early >= warmup:
        assert rates[0] >= rates[1] - 1e-12


def test_the_peak_is_reached_at_the_end_of_the_warm_up_and_one_percent_at_the_end() -> None:
    assert learning_rate_at(0.1, 3e-3, 0.1) == 3e-3
    assert learning_rate_at(1.0, 3e-3, 0.1) == 3e-3 * FLOOR
    assert FLOOR == 0.01


def test_progress_is_steps_or_time_whichever_is_further() -> None:
    assert progress_of(50, 100, 1e9, None) == 0.5
    assert progress_of(50, 100, 6.0, 1.0) == 0.5
    assert progress_of(5, 100, 30.0, 1.0) == 0.5
    assert progress_of(5, 100, 90.0, 1.0) == 1.0
