"""Objects are matched one to one and counted over all images together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cytoray_analysis.tasks.instance_scores import METRICS, overlap, score_instances


def test_a_perfect_answer_scores_one_whatever_its_numbers() -> None:
    truth = np.array([[0, 1, 1], [7, 7, 0]])
    scores = score_instances([overlap(np.array([[0, 5, 5], [2, 2, 0]]), truth)])
    assert scores == dict.fromkeys(scores, 1.0)


def test_missed_invented_and_half_found_objects_count_as_they_should() -> None:
    truth = np.zeros((4, 12), np.uint16)
    truth[:, 0:3], truth[:, 3:6], truth[:, 6:9] = 1, 2, 3
    answer = np.zeros((4, 12), np.int32)
    answer[:, 0:3] = 9  # exact
    answer[:, 3:5] = 4  # IoU 2/3
    answer[:, 10:12] = 5  # invented; object 3 is missed
    scores = score_instances([overlap(answer, truth)])
    assert scores["ap50"] == pytest.approx(2 / 4)
    assert scores["ap70"] == pytest.approx(1 / 5)
    assert scores["precision50"] == pytest.approx(2 / 3)
    assert scores["recall50"] == pytest.approx(2 / 3)
    assert scores["pq"] == pytest.approx((1 + 2 / 3) / 3)
    assert scores["iou"] == pytest.approx(20 / 44)
    assert scores["dice"] == pytest.approx(40 / 64)


def test_scores_are_pooled_over_images_not_averaged() -> None:
    one = np.ones((4, 4), np.uint8)
    many = np.arange(16).reshape(4, 4) + 1
    scores = score_instances([overlap(one, one), overlap(np.zeros((4, 4), np.uint8), many)])
    assert scores["recall50"] == pytest.approx(1 / 17)


def test_nothing_to_find_and_nothing_found_has_no_score() -> None:
    empty = np.zeros((5, 5), np.uint8)
    assert score_instances([overlap(empty, empty)]) == {}


def test_a_share_of_nothing_is_absent() -> None:
    empty, one = np.zeros((5, 5), np.uint8), np.eye(5, dtype=np.uint8)
    missed, invented = score_instances([overlap(empty, one)]), score_instances([overlap(one, empty)])
    assert set(METRICS) - set(missed) == {"precision50"}
    assert set(METRICS) - set(invented) == {"recall50"}
    assert set(missed.values()) == set(invented.values()) == {0.0}


labels = arrays(np.int32, (6, 7), elements=st.integers(0, 4))


@given(answer=labels, truth=labels)
def test_matching_is_one_to_one_and_symmetric(
    answer: np.ndarray[tuple[int, ...], np.dtype[np.int32]], truth: np.ndarray[tuple[int, ...], np.dtype[np.int32]]
) -> None:
    forth, back = overlap(answer, truth), overlap(truth, answer)
    pairs = forth.pairs[forth.matches(0.5)]
    assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == len(pairs)
    assert len(back.matches(0.5)) == len(pairs)
    assert score_instances([forth]).get("ap50") == pytest.approx(score_instances([back]).get("ap50"))


def test_huge_ids_are_counted_like_small_ones() -> None:
    truth = np.array([[0, 4_000_000_000, 4_000_000_000]], np.int64)
    assert score_instances([overlap(np.array([[0, 1, 1]], np.int32), truth)])["ap90"] == 1.0


def test_what_an_overlap_covers_of_either_object_is_told() -> None:
    truth, answer = np.zeros((4, 12), np.uint16), np.zeros((4, 12), np.int32)
    truth[:, 0:4], answer[:, 2:10] = 1, 1
    found = overlap(answer, truth)
    assert found.cover.tolist() == [[0.5, 0.25]]
    assert found.iou.tolist() == [0.2]
