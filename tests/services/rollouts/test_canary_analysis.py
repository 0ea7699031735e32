"""A canary that is no worse goes live; one with a fault does not, and is noticed early."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import numpy as np
import pytest

from cytoray_services.rollouts.canary_analysis import LARGEST_SAMPLE, CanaryAnalysis, Outcome, Reservoir
from cytoray_services.rollouts.rollout import Limits
from cytoray_services.rollouts.rules import Sample, more_failures
from simulated_canaries import BEGAN, canary_of, requests, simulate

QUICK = canary_of(Limits(seconds_per_step=10, least_requests=200), steps=(0.1, 0.5, 1.0))
DEFAULT = canary_of(Limits(seconds_per_step=10))


@pytest.mark.long
def test_of_two_hundred_canaries_that_are_no_worse_fewer_than_four_are_withdrawn() -> None:
    ended = [simulate(requests(), seed=seed, canary=QUICK) for seed in range(200)]
    assert sum(one.what == "withdraw" for one in ended) < 4, [one.reason for one in ended if one.reason]
    assert {one.step for one in ended if one.what == "finish"} == {2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "reason", "most"),
    [
        pytest.param({"failures": 0.05}, "errors", 1_000, id="errors"),
        pytest.param({"slower": 2.0}, "latency", 100, id="slow"),
        pytest.param({"objects": 0.7}, "drift: covered", 600, id="fewer objects"),
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


@pytest.mark.slow
@pytest.mark.parametrize("better", [{"slower": 0.5}, {"failures": 0.0}])
def test_a_better_canary_is_not_withdrawn(better: dict[str, float]) -> None:
    assert simulate(requests(**better), seed=1, canary=QUICK).what == "finish"


def test_a_difference_below_the_limits_does_not_matter_however_sure_it_is() -> None:
    slightly = requests(slower=1.1, brighter=0.15)
    patient = canary_of(Limits(seconds_per_step=10, least_requests=2_000), steps=(0.5, 1.0))
    assert simulate(slightly, seed=2, canary=patient).what == "finish"


@pytest.mark.long
def test_a_canary_that_is_slower_by_as_much_as_is_allowed_goes_live() -> None:
    ended = [simulate(requests(slower=QUICK.limits.slower), seed=seed, canary=QUICK) for seed in range(30)]
    assert [one.reason for one in ended if one.what != "finish"] == []


def test_a_limit_of_one_lets_answers_drift() -> None:
    canary = replace(QUICK, limits=replace(QUICK.limits, drift=1.0))
    assert simulate(requests(objects=0.5), seed=3, canary=canary).what == "finish"


def test_a_step_takes_both_its_time_and_its_requests() -> None:
    canary = canary_of(Limits(seconds_per_step=60, least_requests=30))
    analysis, random, draw = CanaryAnalysis(canary), Random(0), requests()
    late = BEGAN + timedelta(seconds=61)
    assert analysis.verdict(canary, late).what == "stay"
    for _ in range(30):
        analysis.observe("2", draw(random))
    assert analysis.verdict(canary, late).what == "stay"  # nothing to compare with
    for _ in range(20):
        analysis.observe("1", draw(random))
    assert analysis.verdict(canary, BEGAN + timedelta(seconds=59)).what == "stay"
    assert analysis.verdict(canary, late).what == "advance"
    assert analysis.verdict(canary, late).what == "advance"  # until the registry has it
    following = replace(canary, step=1, began=late)
    assert analysis.verdict(following, late + timedelta(seconds=61)).what == "stay"


def test_a_canary_that_only_fails_is_withdrawn_after_twenty_requests() -> None:
    canary = canary_of(steps=(0.5,))
    analysis = CanaryAnalysis(canary)
    for _ in range(20):
        assert analysis.verdict(canary, BEGAN).what == "stay"
        analysis.observe("1", Outcome(False, 0.1, 1.0))
        analysis.observe("2", Outcome(True, 0.1, 1.0))
    verdict = analysis.verdict(canary, BEGAN)
    assert verdict.what == "withdraw"
    assert verdict.reason == "errors: 100.0% of 20 requests failed, beside 0.0%"


@pytest.mark.slow
def test_an_hour_in_which_everything_fails_speaks_against_no_one() -> None:
    down = requests(failures=1.0)
    for seed in range(5):
        assert simulate(down, seed=seed, canary=replace(QUICK, steps=(1.0,)), usual=down).what == "finish"


@pytest.mark.slow
@pytest.mark.parametrize("load", [1.2, 1.5])
def test_an_equal_version_is_not_withdrawn_because_the_last_step_is_a_busy_hour(load: float) -> None:
    short = replace(QUICK, limits=replace(QUICK.limits, seconds_per_step=2.0))
    ended = [simulate(requests(), seed=seed, canary=short, load=(1.0, 1.0, load)) for seed in range(8)]
    assert [one.reason for one in ended if one.what != "finish"] == []


def _batches(slower: float, *, large: float, seed: int) -> str:
    """Analyse a canary whose passes are small beside those of the other version, which cost less for each image."""
    canary, random = canary_of(steps=(0.25,)), np.random.default_rng(seed)
    analysis = CanaryAnalysis(canary)
    for _ in range(500):
        for version, share, times in (("2", 0.2, slower), ("1", large, 1.0)):
            batch = 8 if random.random() < share else 1
            seconds = times * (0.05 + 0.2 / batch) * np.exp(random.normal(0, 0.3))
            analysis.observe(version, Outcome(False, seconds, 0.5, batch=batch))
        verdict = analysis.verdict(canary, BEGAN)
        if verdict.what != "stay":
            return verdict.reason
    return ""


def test_times_are_compared_in_batches_of_like_size() -> None:
    assert [_batches(1.0, large=0.8, seed=seed) for seed in range(10)] == [""] * 10
    for seed in range(5):
        assert _batches(1.7, large=0.05, seed=seed).startswith("latency: ")


def test_a_canary_so_slow_that_its_batches_are_all_larger_is_noticed() -> None:
    canary, random = canary_of(steps=(0.25,)), np.random.default_rng(0)
    analysis = CanaryAnalysis(canary)
    for _ in range(100):
        for version, seconds, batch in (("1", 0.1, 1), ("2", 0.3, 8)):
            analysis.observe(version, Outcome(False, seconds * np.exp(random.normal(0, 0.3)), 0.5, batch=batch))
    verdict = analysis.verdict(canary, BEGAN)
    assert verdict.reason.startswith("latency: ")


def test_times_of_the_rest_of_a_version_are_not_compared() -> None:
    canary = canary_of(steps=(0.25,))
    analysis, random = CanaryAnalysis(canary), np.random.default_rng(0)
    for _ in range(200):
        for version in ("1", "2"):
            analysis.observe(version, Outcome(False, random.gamma(4), 1.0))
        analysis.observe("1", Outcome(False, random.gamma(4) / 10, 1.0, timed=False))
    assert analysis.verdict(canary, BEGAN).what == "stay"


def test_what_is_measured_says_how_many_hours_are_left() -> None:
    analysis, canary = CanaryAnalysis(canary_of()), canary_of()
    assert "hours_left" not in analysis.measured(BEGAN)
    analysis.verdict(canary, BEGAN)
    for number in range(100):
        analysis.observe("2" if number % 20 == 0 else "1", Outcome(False, 1.0, 1.0))
    measured = analysis.measured(BEGAN + timedelta(hours=1))
    assert measured["requests_per_hour"] == 100
    assert measured["hours_left"] == pytest.approx(99 + 20 + 500 / 90)


def test_answers_of_other_versions_do_not_count() -> None:
    analysis = CanaryAnalysis(canary_of())
    for _ in range(50):
        analysis.observe("7", Outcome(True, 0.1, 1.0))
    assert analysis.measured(BEGAN) == {
        "canary_requests": 0,
        "canary_failures": 0,
        "other_requests": 0,
        "other_failures": 0,
    }


def test_a_reservoir_is_bounded_and_prefers_no_one() -> None:
    reservoir = Reservoir()
    for number in range(5 * LARGEST_SAMPLE):
        reservoir.add(Outcome(False, float(number), 1.0))
    assert len(reservoir.kept) == LARGEST_SAMPLE
    assert np.mean([one.seconds for one in reservoir.kept]) == pytest.approx(2.5 * LARGEST_SAMPLE, rel=0.05)


def test_failures_of_all_steps_count_each_beside_its_own() -> None:
    def fails(canary: tuple[int, int], other: tuple[int, int]) -> str | None:
        nothing = np.empty(0)
        own, others = (Sample((counts,) * 2, nothing, nothing, nothing.astype(int), {}) for counts in (canary, other))
        return more_failures(own, others, Limits(), 1e-4)

    # A night in which everything failed, the canary no more than the others, is no finding.
    assert fails((300, 150), (5_700, 2_850)) is None
    # In one such step alone the probability would be 4e-4.
    assert fails((100, 6), (1_900, 5)) == "errors: 6.0% of 200 requests failed, beside 0.3%"
