"""How often luck passes for progress."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from cytoray_analysis.tasks import get_task
from cytoray_services.kinds.evaluated import Evaluation
from cytoray_services.promotion.checks import check_better
from cytoray_services.promotion.resampling import (
    ALL_ATTEMPTS,
    LEVEL,
    RESAMPLES,
    Comparison,
    Loss,
    compare_units,
    find_loss,
    level_of,
)
from cytoray_services.statistics.counts import UnitScores, ratio_of, unit_scores
from cytoray_services.statistics.resampling import corrected_level, exchanged
from simulated_counts import KINDS
from simulated_promotions import compare

CLASSES = ("a", "b", "c")
CLASSIFICATION = get_task("classification", {"classes": list(CLASSES), "counts": [1, 1, 1]})


def answered(truth: np.ndarray, right: float, random: np.random.Generator) -> np.ndarray:
    """Return the probabilities of a model that is right that often."""
    guess = np.where(random.random(len(truth)) < right, truth, (truth + random.integers(1, 3, len(truth))) % 3)
    return np.eye(3)[guess]


def compared(quality: float, *, images: int, seed: int, group_size: int = 1, resamples: int = 4000) -> Comparison:
    """Compare a model that is right so often with one that is right in 70 of 100 cases."""
    random = np.random.default_rng(seed)
    truths = [random.integers(0, 3, 5) for _ in range(images)]
    new, old = ([answered(truth, right, random) for truth in truths] for right in (quality, 0.7))
    groups = [index // group_size for index in range(images)]
    return compare("balanced_accuracy", (new, truths), (old, truths), groups, CLASSIFICATION.score, resamples=resamples)


@pytest.mark.long
def test_equal_candidates_hardly_ever_pass() -> None:
    passed = sum(compared(0.7, images=20, seed=seed).better for seed in range(300))
    assert passed <= 300 * LEVEL * 3
    ten_at_a_time = [sum(compared(0.7, images=12, seed=10 * turn + k).better for k in range(10)) for turn in range(20)]
    assert max(ten_at_a_time) <= 1


@pytest.mark.slow
def test_a_better_candidate_passes_when_there_are_images_enough() -> None:
    assert sum(compared(0.95, images=60, seed=seed, resamples=RESAMPLES).better for seed in range(20)) >= 18


def always_better(images: int, level: float = LEVEL) -> Comparison:
    """Compare a model that is better on each image by as much."""
    new, old = (
        UnitScores(
            {"pearson": value}, images, frozenset(), {"pearson": ratio_of(np.full(images, value), np.ones(images))}
        )
        for value in (0.9, 0.8)
    )
    return compare_units("pearson", new, old, images, level=level)


@pytest.mark.parametrize(("level", "images"), [(LEVEL, 7), (4e-4, 12), (level_of(50), 14)])
def test_so_few_images_can_show_nothing(level: float, images: int) -> None:
    few, enough = always_better(images - 1, level), always_better(images, level)
    assert (few.better, enough.better) == (False, True)
    assert few.least_groups == images
    assert few.probability == pytest.approx(2.0**-few.groups, rel=0.5)
    assert corrected_level(1, LEVEL) == 0
    assert corrected_level(1000, LEVEL) == pytest.approx(LEVEL, rel=0.05)


def test_the_gate_says_how_many_images_could_show_it() -> None:
    evaluation = Evaluation({"pearson": 0.9}, {}, (), 0.0, {}, "pearson")
    few = check_better(always_better(10, 4e-4), evaluation, evaluation, attempt=19)
    assert not few.passed
    assert "at least 12 are necessary to show it" in few.reason
    late = check_better(always_better(40, level_of(1000)), evaluation, evaluation, attempt=1000)
    assert not late.passed
    assert "after so many comparisons, this set cannot show it" in late.reason


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_equal_candidates_pass_as_often_as_is_meant(kind: str) -> None:
    """Thousands of pairs at 10 images; far out in the tail: ``tests/bench/gate_levels.py``."""
    runs, level = 4000, 0.05
    passed = 0
    for seed in range(runs):
        old, new = KINDS[kind](np.random.default_rng((seed, 10)), 10, np.zeros(2))
        (metric,) = new.whole
        passed += compare_units(metric, new, old, 10, seed=seed, resamples=200, level=level).better
    assert binomtest(passed, runs, level, alternative="greater").pvalue > 0.001
    assert passed > runs * level / 2


@pytest.mark.parametrize("resamples", [20, 31])
def test_models_are_exchanged_although_only_one_answers_a_class(resamples: int) -> None:
    random = np.random.default_rng(4)
    truths = [random.integers(0, 2, (6, 7)) for _ in range(5)]
    answers = [[random.integers(0, classes, (6, 7)) for _ in truths] for classes in (2, 3)]
    score = get_task("semantic_segmentation", ARGUMENTS["semantic_segmentation"]).score
    both = [unit_scores(given, truths, range(5), score) for given in answers]
    for metric in ("iou", "dice", "accuracy"):
        found = exchanged(both[0], both[1], metric, seed=7, resamples=resamples)
        assert [one[0] for one in found] == pytest.approx([one.whole[metric] for one in both])
        possible = []
        for which in itertools.product((0, 1), repeat=5):
            mixed = [[answers[model ^ one][at] for at, one in enumerate(which)] for model in (0, 1)]
            possible.append([score(given, truths)[metric] for given in mixed])
        pairs = np.transpose(found)
        nearest = np.abs(pairs[:, None] - np.array(possible)).max(axis=2)
        assert nearest.min(axis=1).max() < 1e-9
        if resamples == 31:  # each of the 32 once
            assert sorted(map(tuple, pairs.round(9))) == sorted(map(tuple, np.round(possible, 9)))


def test_images_without_a_cell_are_no_evidence() -> None:
    random = np.random.default_rng(3)
    truths = [random.integers(0, 3, 40 if number < 5 else 0) for number in range(40)]
    right, wrong = [np.eye(3)[truth] for truth in truths], [np.eye(3)[(truth + 1) % 3] for truth in truths]
    found = compare("accuracy", (right, truths), (wrong, truths), range(40), CLASSIFICATION.score, resamples=4000)
    assert (found.gain, found.images, found.groups, found.better) == (1.0, 40, 5, False)
    worse, better = (unit_scores(answers, truths, range(40), CLASSIFICATION.score) for answers in (wrong, right))
    loss = find_loss("kind = a", "accuracy", worse, better, 0.02, level=0.05)
    assert (loss.groups, loss.verdict) == (5, "unknown")


def test_copies_of_one_image_are_no_further_evidence_when_they_are_one_group() -> None:
    single = compared(0.9, images=8, seed=1)
    random = np.random.default_rng(1)
    truths = [random.integers(0, 3, 5) for _ in range(8)]
    new, old = ([answered(truth, right, random) for truth in truths] for right in (0.9, 0.7))
    tenfold: list[Any] = [[item for item in items for _ in range(10)] for items in (new, old, truths)]
    groups = [index for index in range(8) for _ in range(10)]
    score = CLASSIFICATION.score
    pair = (tenfold[0], tenfold[2]), (tenfold[1], tenfold[2])
    grouped = compare("balanced_accuracy", *pair, groups, score, resamples=4000)
    alone = compare("balanced_accuracy", *pair, range(80), score, resamples=4000)
    assert grouped.probability == pytest.approx(single.probability, abs=0.01)
    assert alone.probability < grouped.probability
    assert (grouped.images, grouped.groups) == (80, 8)


def test_the_same_question_gets_the_same_answer() -> None:
    assert compared(0.8, images=15, seed=3).probability == compared(0.8, images=15, seed=3).probability


def labels(random: np.random.Generator) -> np.ndarray:
    image = np.zeros((24, 24), np.int32)
    for number, (y, x) in enumerate(random.integers(0, 18, (4, 2)), start=1):
        image[y : y + 6, x : x + 6] = number
    return image


TASKS: dict[str, Any] = {
    "segmentation": lambda random: (labels(random), labels(random)),
    "semantic_segmentation": lambda random: (random.integers(0, 3, (8, 9)), random.integers(0, 3, (8, 9))),
    "classification": lambda random: (random.random((6, 3)), random.integers(-1, 3, 6)),
    "label_free": lambda random: tuple(random.random((2, 2, 16, 16)).astype(np.float32)),
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "semantic_segmentation": {"classes": list(CLASSES)},
    "classification": {"classes": list(CLASSES), "counts": [1, 1, 1]},
    "label_free": {"channels": ["x", "y"], "offset": [0.0, 0.0], "scale": [1.0, 1.0]},
}


@pytest.mark.parametrize("name", TASKS)
def test_counts_give_all_scores_that_the_task_gives(name: str) -> None:
    random = np.random.default_rng(2)
    task = get_task(name, ARGUMENTS.get(name))
    pairs = [TASKS[name](random) for _ in range(6)]
    answers, truths, units = [one[0] for one in pairs], [one[1] for one in pairs], [0, 1, 1, 2, 3, 4]
    counted = unit_scores(answers, truths, units, task.score)
    assert counted.whole == task.score(answers, truths)
    assert set(counted.whole) - counted.counted <= {"coverage68"}
    weights = random.multinomial(5, np.full(5, 0.2), size=6)
    for row in weights:
        drawn = np.repeat(np.arange(6), row[units])
        expected = task.score([answers[index] for index in drawn], [truths[index] for index in drawn])
        for metric, value in counted.of.items():
            found = float(value(row[None].astype(float))[0])
            if metric in expected:
                assert found == pytest.approx(expected[metric], abs=1e-6), metric


def test_a_score_that_follows_from_no_counts_is_taken_without_each_unit() -> None:
    """The mean of medians of images: the jackknife's bootstrap is about as wide as the true one."""
    random = np.random.default_rng(2)
    answers = [random.normal(0, 1, 30) for _ in range(30)]

    def score(answers: Any, truths: Any) -> dict[str, float]:
        return {"tra": float(np.mean([np.median(one) for one in answers]))}

    counted = unit_scores(answers, answers, [f"{number:02}" for number in range(30)], score)
    assert not counted.counted
    weights = random.multinomial(30, np.full(30, 1 / 30), size=2000).astype(float)
    true = weights @ np.array([np.median(one) for one in answers]) / 30
    np.testing.assert_allclose(counted.of["tra"](weights), true, atol=1e-9)


def lost(delta: float, *, images: int, seed: int, tolerance: float = 0.02, level: float = 0.05) -> Loss:
    random = np.random.default_rng(seed)
    truths = [random.integers(0, 3, 20) for _ in range(images)]
    both = [
        unit_scores([answered(one, right, random) for one in truths], truths, range(images), CLASSIFICATION.score)
        for right in (0.8 + delta, 0.8)
    ]
    return find_loss("g", "accuracy", both[0], both[1], tolerance, level=level, seed=seed, resamples=2000)


@pytest.mark.long
def test_a_loss_is_called_one_only_where_it_is_shown() -> None:
    assert sum(lost(0.0, images=8, seed=seed).verdict == "worse" for seed in range(200)) <= 200 * 0.05
    assert sum(lost(-0.15, images=40, seed=seed).verdict == "worse" for seed in range(40)) >= 36
    assert sum(lost(0.0, images=400, seed=seed, tolerance=0.05).verdict == "kept" for seed in range(10)) >= 9
    assert lost(-0.5, images=5, seed=0).verdict == "unknown"


def test_scores_of_which_less_is_better_are_compared_so() -> None:
    random = np.random.default_rng(0)
    truths = [random.integers(0, 3, 30) for _ in range(30)]
    right, wrong = ([np.eye(3)[(one + shift) % 3] * 0.9 + 0.05 for one in truths] for shift in (0, 1))
    pairs = (right, truths), (wrong, truths)
    assert compare("ece", *pairs, range(30), CLASSIFICATION.score, resamples=1000).better
    assert not compare("ece", *pairs[::-1], range(30), CLASSIFICATION.score, resamples=1000).better


def test_the_level_is_spent_over_all_attempts_on_one_set() -> None:
    levels = [level_of(attempt) for attempt in range(1, 10_001)]
    assert levels[0] == pytest.approx(LEVEL)
    assert levels == sorted(levels, reverse=True)
    assert 0.99 * ALL_ATTEMPTS < sum(levels) < ALL_ATTEMPTS
