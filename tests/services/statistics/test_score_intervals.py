"""How often an interval holds the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from cytoray_services.statistics.counts import UnitScores, ratio_of
from cytoray_services.statistics.intervals import Interval, few_units, intervals_of, score_intervals, shown
from simulated_promotions import TASK


def ratio_interval(scores: np.ndarray, weights: np.ndarray) -> Interval:
    of = {"x": ratio_of(scores * weights, weights)}
    return intervals_of(UnitScores({"x": 0.0}, len(scores), frozenset("x"), of))["x"]


@pytest.mark.slow
@pytest.mark.parametrize("images", [6, 20])
def test_the_interval_of_images_that_differ_holds_the_truth(images: int) -> None:
    def draw(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        return random.beta(8, 2, count), random.integers(10, 60, count).astype(float)

    scores, weights = draw(np.random.default_rng(5), 200_000)
    true = float((scores * weights).sum() / weights.sum())
    found = [ratio_interval(*draw(np.random.default_rng((seed, images)), images)) for seed in range(200)]
    assert np.mean([one.low <= true <= one.high for one in found]) >= 0.88  # of 200, where 0.90 or more is meant


@pytest.mark.slow
def test_cells_of_one_image_are_not_drawn_by_themselves() -> None:
    """Ten images of 100 cells, each with a share of its own that is right."""
    true = float(expit(np.random.default_rng(5).normal(2.0, 1.0, 400_000)).mean())
    held = {"image": 0, "cell": 0}
    for seed in range(50):
        random = np.random.default_rng(seed)
        truths = [random.integers(0, 2, 100) for _ in range(10)]
        rates = expit(random.normal(2.0, 1.0, 10))
        right = [random.random(100) < rate for rate in rates]
        answers = [np.eye(2)[np.where(good, truth, 1 - truth)] for good, truth in zip(right, truths, strict=True)]
        by_image = score_intervals(answers, truths, range(10), TASK.score)["accuracy"]
        every = np.concatenate(right)
        by_cell = ratio_interval(every.astype(float), np.ones(len(every)))
        for unit, one in (("image", by_image), ("cell", by_cell)):
            held[unit] += one.low <= true <= one.high
    assert held["image"] >= 0.85 * 50
    assert held["cell"] < 0.7 * 50


def test_each_score_has_its_own_interval() -> None:
    random = np.random.default_rng(0)
    truths = [np.repeat([0, 1], [18, 2]) for _ in range(12)]
    answers = [np.eye(2)[np.where(random.random(20) < 0.8, one, 1 - one)] * 0.8 + 0.1 for one in truths]
    intervals, whole = score_intervals(answers, truths, range(12), TASK.score), TASK.score(answers, truths)
    assert intervals.keys() == whole.keys()
    assert all(one.low <= whole[name] <= one.high for name, one in intervals.items())
    assert len({(one.low, one.high) for one in intervals.values()}) > 6


def test_few_units_are_warned_of() -> None:
    assert few_units(6, "image") is None
    assert "based on 1 patient; with fewer than 6" in (few_units(1, "patient") or "")
    assert shown(0.5, Interval(0.4, 0.6, 5)) == "0.500 (0.400 to 0.600?)"
    assert shown(0.5, Interval(0.4, 0.6, 6)) == "0.500 (0.400 to 0.600)"
    assert score_intervals([np.eye(2)], [np.array([0, 1])], [0], TASK.score) == {}


def test_images_without_anything_to_count_are_no_evidence() -> None:
    """Of 40 images five have a cell of the rare class, or one: 40 is not what its recall rests on."""
    random = np.random.default_rng(0)
    for rare, known in ((5, True), (1, False)):
        truths = [np.repeat([0, 1], [10, 10 if number < rare else 0]) for number in range(40)]
        answers = [np.eye(2)[np.where(random.random(len(one)) < 0.8, one, 1 - one)] for one in truths]
        intervals = score_intervals(answers, truths, range(40), TASK.score)
        assert (intervals["accuracy"].units, intervals["accuracy"].few) == (40, False)
        assert ("recall/b" in intervals) == known
        if known:
            assert (intervals["recall/b"].units, intervals["recall/b"].few) == (5, True)
