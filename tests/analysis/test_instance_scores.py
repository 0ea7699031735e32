"""Objects are matched one to one and counted over all images together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cytoray_analysis.tasks.instance_scores import METRICS, count_objects, score_instances
from cytoray_analysis.tasks.object_errors import ERRORS
from cytoray_analysis.tasks.overlap import overlap


def test_a_perfect_answer_scores_one_whatever_its_numbers() -> None:
    truth = np.array([[0, 1, 1], [7, 7, 0]])
    scores = score_instances([count_objects(np.array([[0, 5, 5], [2, 2, 0]]), truth)])
    assert {name: scores.pop(name) for name in (*ERRORS, "count_error")} == dict.fromkeys((*ERRORS, "count_error"), 0.0)
    assert scores == dict.fromkeys(scores, 1.0)


def test_missed_invented_and_half_found_objects_count_as_they_should() -> None:
    truth = np.zeros((4, 12), np.uint16)
    truth[:, 0:3], truth[:, 3:6], truth[:, 6:9] = 1, 2, 3
    answer = np.zeros((4, 12), np.int32)
    answer[:, 0:3] = 9  # exact
    answer[:, 3:5] = 4  # IoU 2/3
    answer[:, 10:12] = 5  # invented; object 3 is missed
    scores = score_instances([count_objects(answer, truth)])
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
    scores = score_instances([count_objects(one, one), count_objects(np.zeros((4, 4), np.uint8), many)])
    assert scores["recall50"] == pytest.approx(1 / 17)


def test_nothing_to_find_and_nothing_found_has_no_score() -> None:
    empty = np.zeros((5, 5), np.uint8)
    assert score_instances([count_objects(empty, empty)]) == {}


def test_a_share_of_nothing_is_absent() -> None:
    empty, one = np.zeros((5, 5), np.uint8), np.eye(5, dtype=np.uint8)
    missed, invented = score_instances([count_objects(empty, one)]), score_instances([count_objects(one, empty)])
    assert set(METRICS) - set(missed) == {"precision50"}
    assert set(METRICS) - set(invented) == {"recall50", "count_error"}
    assert (missed.pop("missed"), missed.pop("count_error"), invented.pop("invented")) == (1, 1, 1)
    assert set(missed.values()) == set(invented.values()) == {0.0}


labels = arrays(np.int32, (6, 7), elements=st.integers(0, 4))


@pytest.mark.slow
@given(answer=labels, truth=labels)
def test_matching_is_one_to_one_and_symmetric(
    answer: np.ndarray[tuple[int, ...], np.dtype[np.int32]], truth: np.ndarray[tuple[int, ...], np.dtype[np.int32]]
) -> None:
    forth, back = overlap(answer, truth), overlap(truth, answer)
    pairs = forth.pairs[forth.matches(0.5)]
    assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == len(pairs)
    assert len(back.matches(0.5)) == len(pairs)
    scores, turned = score_instances([count_objects(answer, truth)]), score_instances([count_objects(truth, answer)])
    for name in ("msa", "msa_pooled", "ap50", "ap90", "surface_dice"):
        assert scores.get(name) == pytest.approx(turned.get(name))


def test_huge_ids_are_counted_like_small_ones() -> None:
    truth = np.array([[0, 4_000_000_000, 4_000_000_000]], np.int64)
    assert score_instances([count_objects(np.array([[0, 1, 1]], np.int32), truth)])["ap90"] == 1.0


def test_what_an_overlap_covers_of_either_object_is_reported() -> None:
    truth, answer = np.zeros((4, 12), np.uint16), np.zeros((4, 12), np.int32)
    truth[:, 0:4], answer[:, 2:10] = 1, 1
    found = overlap(answer, truth)
    assert found.cover.tolist() == [[0.5, 0.25]]
    assert found.iou.tolist() == [0.2]


def test_msa_is_the_mean_over_thresholds_and_images() -> None:
    truth, answer = np.zeros((10, 20), np.uint8), np.zeros((10, 20), np.uint8)
    truth[:, :10], answer[:, :7] = 1, 1  # IoU 0.7: found at 0.50 to 0.70
    wrong = np.ones((4, 4), np.uint8)
    empty = np.zeros((4, 4), np.uint8)
    rows = [count_objects(answer, truth), count_objects(wrong, empty), count_objects(empty, empty)]
    scores = score_instances(rows)
    assert scores["msa"] == pytest.approx(0.5 * 5 / 10)  # the image without any object does not count
    assert scores["msa_pooled"] == pytest.approx(0.5 * 5 / 10)
    assert score_instances(rows[:1])["msa"] == pytest.approx(0.5)


def test_the_surface_dice_sees_what_ap50_does_not() -> None:
    truth = np.zeros((40, 40), np.uint8)
    truth[10:30, 10:30] = 1
    shifted, ragged = np.roll(truth, 1, axis=1), truth.copy()
    ragged[10:16:2, 10:30] = 0  # holes and teeth
    near, teeth = (score_instances([count_objects(answer, truth)]) for answer in (shifted, ragged))
    assert near["ap50"] == teeth["ap50"] == 1.0
    assert near["surface_dice"] == 1.0
    assert teeth["surface_dice"] < 0.85


def test_errors_of_counting_do_not_cancel_between_images() -> None:
    two = np.array([[1, 0, 2]])
    one, three = np.array([[1, 0, 0]]), np.array([[1, 2, 3]])
    assert score_instances([count_objects(one, two), count_objects(three, two)])["count_error"] == 0.5
