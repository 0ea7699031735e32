"""Errors are counted as someone looking at the picture would count them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from cytoray_analysis.tasks.object_errors import count_errors
from cytoray_analysis.tasks.overlap import overlap

Labels = NDArray[np.int32]
NONE = {"split": 0, "merged": 0, "missed": 0, "invented": 0}


def stripes(*parts: tuple[int, int, int]) -> Labels:
    """Objects that fill columns: number, first, last + 1."""
    labels = np.zeros((4, 60), np.int32)
    for number, start, stop in parts:
        labels[:, start:stop] = number
    return labels


TRUTH = stripes((1, 0, 10), (2, 10, 20), (3, 30, 50))


@pytest.mark.parametrize(
    ("answer", "errors"),
    [
        (TRUTH, {}),
        (stripes((1, 0, 5), (2, 5, 10), (3, 10, 20), (4, 30, 50)), {"split": 1}),
        (stripes((1, 0, 10), (2, 10, 20), (3, 30, 47), (4, 47, 50)), {"split": 1}),
        (stripes((1, 0, 20), (2, 30, 50)), {"merged": 1}),
        (stripes((1, 0, 10), (2, 10, 20)), {"missed": 1}),
        (stripes((1, 0, 10), (2, 10, 20), (3, 30, 50), (4, 53, 58)), {"invented": 1}),
        (stripes((1, 0, 10), (2, 10, 20), (3, 45, 58)), {"missed": 1, "invented": 1}),
        (stripes((1, 0, 9), (2, 9, 20), (3, 27, 50)), {}),  # a border a little off is no such error
        (np.ones((4, 60), np.int32), {"merged": 1}),
        (stripes(), {"missed": 3}),
    ],
    ids=["perfect", "halved", "crumb", "merged", "missed", "invented", "elsewhere", "border", "all in one", "nothing"],
)
def test_each_error_has_its_name(answer: Labels, errors: dict[str, int]) -> None:
    assert count_errors([overlap(answer, TRUTH)]) == NONE | errors


def test_errors_of_all_images_are_added_up() -> None:
    merged = overlap(stripes((1, 0, 20), (2, 30, 50)), TRUTH)
    assert count_errors([merged, merged]) == NONE | {"merged": 2}
    assert count_errors([]) == NONE


labels = arrays(np.int32, (6, 7), elements=st.integers(0, 4))


@given(answer=labels, truth=labels)
def test_exchanging_truth_and_answer_exchanges_the_errors(answer: Labels, truth: Labels) -> None:
    forth, back = count_errors([overlap(answer, truth)]), count_errors([overlap(truth, answer)])
    assert (forth["split"], forth["missed"]) == (back["merged"], back["invented"])


@given(answer=labels, truth=labels)
def test_a_matched_object_is_neither_missed_nor_invented(answer: Labels, truth: Labels) -> None:
    found = overlap(answer, truth)
    errors, matched = count_errors([found]), len(found.matches(0.5))
    assert matched + errors["missed"] <= found.truths
    assert matched + errors["invented"] <= found.answers
