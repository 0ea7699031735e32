"""How often luck passes for progress."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cytoray_analysis.tasks import get_task
from cytoray_services.promotion.counts import pooled_score
from cytoray_services.promotion.resampling import LEVEL, RESAMPLES, Comparison, compare, corrected_level

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


def test_equal_candidates_hardly_ever_pass() -> None:
    passed = sum(compared(0.7, images=20, seed=seed).better for seed in range(300))
    assert passed <= 300 * LEVEL * 3
    ten_at_a_time = [sum(compared(0.7, images=12, seed=10 * turn + k).better for k in range(10)) for turn in range(20)]
    assert max(ten_at_a_time) <= 1


def test_a_better_candidate_passes_when_there_are_images_enough() -> None:
    assert sum(compared(0.95, images=60, seed=seed, resamples=RESAMPLES).better for seed in range(20)) >= 18


def test_a_few_images_can_show_nothing() -> None:
    assert not compared(1.0, images=5, seed=0, resamples=RESAMPLES).better
    assert corrected_level(5) * RESAMPLES < 1 < corrected_level(6) * RESAMPLES
    assert corrected_level(1) == 0
    assert corrected_level(1000) == pytest.approx(LEVEL, rel=0.05)


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
def test_counts_give_the_score_that_the_task_gives(name: str) -> None:
    random = np.random.default_rng(2)
    task = get_task(name, ARGUMENTS.get(name))
    pairs = [TASKS[name](random) for _ in range(5)]
    answers, truths = [one[0] for one in pairs], [one[1] for one in pairs]
    metric = next(iter(task.score(answers, truths)))
    pooled, counted = pooled_score(metric, answers, truths, task.score)
    assert counted
    weights = random.multinomial(5, np.full(5, 0.2), size=6)
    for row, value in zip(weights, pooled(weights), strict=True):
        drawn = np.repeat(np.arange(5), row)
        expected = task.score([answers[index] for index in drawn], [truths[index] for index in drawn])[metric]
        assert value == pytest.approx(expected, abs=1e-6)


def test_a_score_without_counts_is_taken_by_the_task() -> None:
    random = np.random.default_rng(2)
    pairs = [TASKS["classification"](random) for _ in range(3)]
    answers, truths = [one[0] for one in pairs], [one[1] for one in pairs]
    pooled, counted = pooled_score("ece", answers, truths, CLASSIFICATION.score)
    assert not counted
    drawn = CLASSIFICATION.score([answers[0], answers[0], answers[2]], [truths[0], truths[0], truths[2]])
    assert pooled(np.array([[2, 0, 1]]))[0] == drawn["ece"]
