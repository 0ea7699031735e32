"""After calibration, of the objects that are called nine tenths sure, nine in ten are right."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cytoray_analysis.tasks.calibration import binned_calibration_error
from cytoray_analysis.tasks.confidence import (
    calibrate,
    fit_confidence,
    matched_objects,
)


def overconfident(seed: int, objects: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Objects that are right less often than they say; entry 0 is the background's."""
    random = np.random.default_rng(seed)
    raw = random.uniform(0.05, 0.99, objects + 1)
    logit = np.log(raw / (1 - raw))
    right = random.random(objects + 1) < 1 / (1 + np.exp(-(1.6 * logit - 1.5)))
    right[0] = True
    return raw, right


def test_calibration_lowers_the_error_on_objects_that_it_never_saw() -> None:
    images = [overconfident(seed, 100) for seed in range(20)]
    fitted = fit_confidence([raw for raw, _ in images], [right for _, right in images])
    assert fitted["confidence_slope"] == pytest.approx(1.6, abs=0.25)
    assert fitted["confidence_offset"] == pytest.approx(-1.5, abs=0.25)
    raw, right = overconfident(99, 4000)
    probability = calibrate(raw, fitted["confidence_slope"], fitted["confidence_offset"])
    before, after = (binned_calibration_error(item[1:], right[1:], 10) for item in (raw, probability))
    assert before > 0.1
    assert after < 0.03


def test_the_calibration_error_is_the_gap_between_word_and_deed() -> None:
    confidence = np.array([0.72, 0.78, 0.75, 0.75, 0.1, 0.1])
    matched = np.array([True, True, False, False, False, False])
    assert binned_calibration_error(confidence, matched, 5) == pytest.approx((4 * 0.25 + 2 * 0.1) / 6)
    assert np.isnan(binned_calibration_error(confidence[:0], matched[:0], 10))


def test_slope_one_and_offset_zero_change_nothing() -> None:
    raw = np.linspace(0.001, 0.999, 50, dtype=np.float32)
    assert calibrate(raw, 1.0, 0.0) == pytest.approx(raw, abs=1e-6)
    assert np.isfinite(calibrate(np.array([0.0, 1.0]), 5.0, 1.0)).all()


@pytest.mark.parametrize("right", [True, False])
def test_few_objects_all_alike_do_not_make_anyone_certain(right: bool) -> None:
    fitted = fit_confidence([np.array([0.0, 0.8, 0.9, 0.7])], [np.array([False, right, right, right])])
    probability = calibrate(np.array([0.8]), fitted["confidence_slope"], fitted["confidence_offset"])[0]
    assert 0.6 < (probability if right else 1 - probability) < 0.95


def test_no_object_leaves_confidence_as_it_is() -> None:
    fitted = fit_confidence([np.zeros(1)], [np.zeros(1, np.bool_)])
    assert fitted == fit_confidence([], []) == {"confidence_slope": 1.0, "confidence_offset": 0.0}


def test_the_order_of_objects_stays_even_where_it_is_wrong() -> None:
    raw, right = np.linspace(0.1, 0.9, 101), np.linspace(0.1, 0.9, 101) < 0.5
    fitted = fit_confidence([raw], [right])
    probability = calibrate(raw, fitted["confidence_slope"], fitted["confidence_offset"])
    assert (np.diff(probability) > 0).all()
    assert np.ptp(probability) < 0.1


def test_matched_objects_are_reported_by_their_number() -> None:
    truth, answer = np.zeros((4, 12), np.uint16), np.zeros((4, 12), np.int32)
    truth[:, 0:3], truth[:, 3:6] = 9, 4
    answer[:, 0:3], answer[:, 5:9], answer[:, 10:12] = 1, 2, 3
    assert matched_objects(answer, truth)[1:].tolist() == [True, False, False]
    assert matched_objects(np.zeros((4, 12), np.int32), truth).shape == (1,)
