"""A canary that is no worse goes live; one with a fault does not, and is noticed early."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import numpy as np
import pytest

from cytoray_services.rollouts.judge import LARGEST_SAMPLE, Judge, Outcome, Reservoir
from cytoray_services.rollouts.rollout import Limits
from cytoray_services.rollouts.rules import Sample, more_failures
from simulated_canaries import BEGAN, canary_of, requests, simulate

QUICK = canary_of(Limits(seconds_per_step=10, least_requests=200), steps=(0.1, 0.5, 1.0))
DEFAULT = canary_of(Limits(seconds_per_step=10))


def test_of_two_hundred_canaries_that_are_no_worse_fewer_than_four_are_withdrawn() -> None:
    ended = [simulate(requests(), seed=seed, canary=QUICK) for seed in range(200)]
    assert sum(one.what == "withdraw" for one in ended) < 4, [one.reason for one in ended if one.reason]
    assert {one.step for one in ended if one.what == "finish"} == {2}


@pytest.mark.parametrize(
    ("fault", "reason", "most"),
    [
        pytest.param({"failures": 0.03}, "errors", 1_000, id="errors"),
        pytest.param({"slower": 2.0}, "latency", 100, id="slow"),
        pytest.param({"objects": 0.7}, "drift: covered", 300, id="fewer objects"),
        pytest.param({"brighter": 1.0}, "drift: mean intensity", 150, id="other intensities"),
    ],
)
def test_a_fault_is_noticed_before_everybody_gets_the_canary(fault: dict[str, Any], reason: str, most: int) -> None:
    for seed in range(8):
        ended = simulate(requests(**fault), seed=seed, canary=DEFAULT)
        assert ended.what == "withdraw"
        assert ended.reason.startswith(reason)
        assert ended.step < 2
        assert ended.canary_requests <= most


def test_now_and_then_ten_times_as_slow_is_noticed_though_the_median_is_the_same() -> None:
    ended = simulate(requests(stuck=0.15), seed=0, canary=DEFAULT)
    assert (ended.what, ended.step) == ("withdraw", 0)
    assert "95 % quantile" in ended.reason


@pytest.mark.parametrize("better", [{"slower": 0.5}, {"failures": 0.0}])
def test_a_better_canary_is_not_withdrawn(better: dict[str, float]) -> None:
    assert simulate(requests(**better), seed=1, canary=QUICK).what == "finish"


def test_a_difference_below_the_limits_does_not_matter_however_sure_it_is() -> None:
    slightly = requests(slower=1.1, brighter=0.15)
    patient = canary_of(Limits(seconds_per_step=10, least_requests=2_000), steps=(0.5, 1.0))
    assert simulate(slightly, seed=2, canary=patient).what == "finish"


def test_a_limit_of_one_lets_answers_drift() -> None:
    canary = replace(QUICK, limits=replace(QUICK.limits, drift=1.0))
    assert simulate(requests(objects=0.5), seed=3, canary=canary).what == "finish"


def test_a_step_takes_both_its_time_and_its_requests() -> None:
    canary = canary_of(Limits(seconds_per_step=60, least_requests=30))
    judge, random, draw = Judge(canary), Random(0), requests()
    late = BEGAN + timedelta(seconds=61)
    assert judge.verdict(canary, late).what == "stay"
    for _ in range(30):
        judge.observe("2", draw(random))
    assert judge.verdict(canary, BEGAN + timedelta(seconds=59)).what == "stay"
    assert judge.verdict(canary, late).what == "advance"
    assert judge.verdict(canary, late).what == "advance"  # until the registry has it
    following = replace(canary, step=1, began=late)
    assert judge.verdict(following, late + timedelta(seconds=61)).what == "stay"


def test_a_canary_that_only_fails_is_withdrawn_after_twenty_requests_though_nobody_else_answers() -> None:
    canary = canary_of(steps=(1.0,))
    judge = Judge(canary)
    for _ in range(20):
        assert judge.verdict(canary, BEGAN).what == "stay"
        judge.observe("2", Outcome(True, 0.1, 1.0))
    verdict = judge.verdict(canary, BEGAN)
    assert verdict.what == "withdraw"
    assert verdict.reason == "errors: 100.0% of 20 requests failed, beside 0.0%"


def test_answers_of_other_versions_do_not_count() -> None:
    judge = Judge(canary_of())
    for _ in range(50):
        judge.observe("7", Outcome(True, 0.1, 1.0))
    assert judge.measured() == {
        "canary_requests": 0,
        "canary_failures": 0,
        "other_requests": 0,
        "other_failures": 0,
    }


def test_a_reservoir_is_bounded_and_prefers_nobody() -> None:
    reservoir = Reservoir()
    for number in range(5 * LARGEST_SAMPLE):
        reservoir.add(Outcome(False, float(number), 1.0))
    sample = reservoir.sample()
    assert sample.counts == ((5 * LARGEST_SAMPLE, 0),)
    assert len(sample.pace) == LARGEST_SAMPLE
    assert np.mean(sample.pace) == pytest.approx(2.5 * LARGEST_SAMPLE, rel=0.05)


def test_failures_of_all_steps_count_each_beside_its_own() -> None:
    def fails(canary: tuple[int, int], other: tuple[int, int]) -> str | None:
        nothing = np.empty(0)
        own, others = (Sample((counts,) * 2, nothing, {}) for counts in (canary, other))
        return more_failures(own, others, Limits(), 1e-4)

    # A night in which everything failed, the canary no more than the others, speaks against nobody.
    assert fails((300, 150), (5_700, 2_850)) is None
    # In one such step alone the probability would be 2e-4.
    assert fails((100, 4), (1_900, 5)) == "errors: 4.0% of 200 requests failed, beside 0.3%"
