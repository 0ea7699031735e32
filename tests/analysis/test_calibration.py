"""The calibration error that calibrated answers show since they are few."""

from __future__ import annotations

import numpy as np
import pytest

from cytoray_analysis.tasks.calibration import (
    binned_calibration_error,
    expected_calibration_error_when_calibrated,
)


def calibrated_answers(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    confidence = random.uniform(0.5, 1.0, count)
    return confidence, random.random(count) < confidence


@pytest.mark.slow
def test_fifty_calibrated_answers_show_an_error_as_large_as_is_expected() -> None:
    errors, means, above = [], [], 0
    for seed in range(60):
        confidence, right = calibrated_answers(seed, 50)
        expected = expected_calibration_error_when_calibrated(confidence, seed=seed)
        errors.append(binned_calibration_error(confidence, right, 15))
        means.append(expected.mean)
        above += errors[-1] > expected.high
    assert np.mean(errors) > 0.1
    assert abs(np.mean(errors) - np.mean(means)) < 0.015
    assert above <= 8


def test_more_answers_show_less_and_certain_ones_nothing() -> None:
    few, many = (expected_calibration_error_when_calibrated(calibrated_answers(0, count)[0]) for count in (50, 5000))
    assert many.mean < few.mean / 4
    assert many.mean < many.high
    assert expected_calibration_error_when_calibrated(np.ones(20)).high == 0.0


def test_an_error_is_said_beside_what_is_expected() -> None:
    told = expected_calibration_error_when_calibrated(np.ones(20)).beside(0.0614)
    assert told.startswith("0.061 (0.000 is expected of calibrated answers at this n")
