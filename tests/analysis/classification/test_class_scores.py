"""The scores are those of scikit-learn, and classes that nobody could have found do not distort them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics

from cytoray_analysis.tasks.class_scores import calibration_error, count_confusions, score_classes
from cytoray_analysis.tasks.classification import Classification

NAMES = ["a", "b", "c", "d"]


def one_hot(predicted: NDArray[np.int64], sure: float = 1.0) -> NDArray[np.float64]:
    probabilities = np.full((len(predicted), 4), (1 - sure) / 3)
    probabilities[np.arange(len(predicted)), predicted] = sure
    return probabilities


def cells(seed: int, count: int = 300) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    chance = np.random.default_rng(seed)
    truth = chance.choice(4, count, p=[0.7, 0.2, 0.08, 0.02])
    return truth, np.where(chance.random(count) < 0.8, truth, chance.integers(0, 4, count))


def test_scores_agree_with_scikit_learn() -> None:
    truth, predicted = cells(0)
    scores = score_classes(one_hot(predicted), truth, NAMES)
    assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert scores["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(truth, predicted))
    assert scores["precision_macro"] == pytest.approx(metrics.precision_score(truth, predicted, average="macro"))
    assert scores["recall_macro"] == pytest.approx(metrics.recall_score(truth, predicted, average="macro"))
    assert scores["f1_macro"] == pytest.approx(metrics.f1_score(truth, predicted, average="macro"))
    assert scores["jaccard_macro"] == pytest.approx(metrics.jaccard_score(truth, predicted, average="macro"))
    assert scores["f1/c"] == pytest.approx(metrics.f1_score(truth == 2, predicted == 2))


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30))
def test_scores_lie_between_zero_and_one_and_have_known_names(pairs: list[tuple[int, int]]) -> None:
    truth, predicted = np.array(pairs, np.int64).reshape(-1, 2).T
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = score_classes(one_hot(predicted), truth, NAMES)
    assert [name for name in Classification(classes=NAMES).output.metrics if name in scores] == list(scores)
    assert bool(scores) == bool(pairs)
    assert all(0 <= value <= 1 for value in scores.values())
    assert count_confusions(one_hot(predicted), truth, 4).sum() == len(pairs)


def test_a_class_that_does_not_occur_does_not_change_the_means() -> None:
    truth, predicted = cells(1)
    kept = (truth < 3) & (predicted < 3)
    three = score_classes(one_hot(predicted[kept])[:, :3], truth[kept], NAMES[:3])
    four = score_classes(one_hot(predicted[kept]), truth[kept], NAMES)
    macro = ["balanced_accuracy", "precision_macro", "recall_macro", "f1_macro", "jaccard_macro"]
    assert [four[name] for name in macro] == pytest.approx([three[name] for name in macro])
    assert not [name for name in four if name.endswith("/d")]


def test_a_class_that_is_never_found_counts_as_nothing_found() -> None:
    truth = np.array([0, 0, 0, 1])
    scores = score_classes(one_hot(np.zeros(4, np.int64)), truth, NAMES)
    assert (scores["recall/b"], scores["f1/b"]) == (0.0, 0.0)
    assert "precision/b" not in scores
    assert scores["balanced_accuracy"] == 0.5
    invented = score_classes(one_hot(np.array([0, 0, 2])), np.array([0, 0, 0]), NAMES)
    assert invented["f1/c"] == 0.0
    assert invented["recall_macro"] == pytest.approx(2 / 3)


def test_the_first_score_is_the_one_to_maximise() -> None:
    assert Classification(classes=NAMES).output.metric == "balanced_accuracy"


def test_images_are_pooled_and_unknown_cells_left_out() -> None:
    truth, predicted = cells(2)
    answers = one_hot(predicted)
    unknown = truth.copy()
    unknown[::7] = -1
    parts = Classification(classes=NAMES).score(
        [answers[:10], answers[10:10], answers[10:]], np.split(unknown, [10, 10])
    )
    assert parts == score_classes(answers[unknown >= 0], truth[unknown >= 0], NAMES)


def test_rows_of_the_confusion_matrix_are_true_classes() -> None:
    matrix = count_confusions(one_hot(np.array([1, 1, 3])), np.array([0, 0, 3]), 4)
    assert matrix[0, 1] == 2
    assert matrix[3, 3] == 1
    assert matrix.sum() == 3
    assert count_confusions(np.zeros((0, 4)), np.zeros(0, np.int64), 4).shape == (4, 4)


def test_the_calibration_error_is_the_gap_between_sureness_and_truth() -> None:
    truth = np.array([0] * 8 + [1] * 2)
    predicted = np.zeros(10, np.int64)
    assert calibration_error(one_hot(predicted, sure=0.8), truth) == pytest.approx(0.0)
    assert calibration_error(one_hot(predicted, sure=0.95), truth) == pytest.approx(0.15)
    assert calibration_error(one_hot(predicted, sure=1.0), truth) == pytest.approx(0.2)
    # Two bins that err in opposite directions do not make up for each other.
    mixed = np.concatenate([one_hot(predicted, sure=0.95), one_hot(predicted, sure=0.65)])
    assert calibration_error(mixed, np.tile(truth, 2)) == pytest.approx(0.15)
