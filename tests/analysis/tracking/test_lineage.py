from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.errors import DatasetError, ImageError
from cytoray_analysis.tracking.lineage import check_lineage, check_tracks


def table(*rows: tuple[int, int, int, int]) -> np.ndarray:
    return np.array(rows, dtype=np.int64).reshape(-1, 4)


def test_a_division_and_an_orphan_are_a_valid_lineage() -> None:
    check_tracks(table((1, 0, 3, 0), (2, 4, 9, 1), (3, 4, 5, 1), (8, 2, 2, 0)))


def test_no_tracks_are_a_valid_lineage() -> None:
    check_tracks(table())


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(1, 0, 3, 0), (1, 4, 5, 0)], "track 1 again"),
        ([(0, 0, 3, 0)], "at least 1"),
        ([(1, -1, 3, 0)], "before frame 0"),
        ([(1, 5, 3, 0)], "must not end before it begins"),
        ([(2, 4, 5, 1)], "names the parent 1, which is not in the list"),
        ([(1, 3, 6, 0), (2, 1, 5, 1)], "a parent must end before its daughter begins"),
        ([(1, 0, 3, 0), (2, 3, 5, 1)], "a parent must end before its daughter begins"),
        ([(1, 0, 3, 1)], "a parent must end before its daughter begins"),
        ([(1, 0, 3, 2), (2, 4, 5, 1)], "a parent must end before its daughter begins"),
        ([(1, 0, 3, 0), (2, 6, 7, 1)], "expected at most 0 frames between"),
        ([(1, 0, 3, 0), (2, 4, 4, 1), (3, 4, 4, 1), (4, 4, 4, 1)], "at most 2 daughters, but track 1 has 3"),
    ],
)
def test_each_flaw_of_a_lineage_is_named(rows: list[tuple[int, int, int, int]], said: str) -> None:
    with pytest.raises(DatasetError, match=said) as caught:
        check_tracks(table(*rows))
    assert caught.value.hint


def test_gaps_and_three_daughters_pass_where_they_are_allowed() -> None:
    check_tracks(table((1, 0, 3, 0), (2, 6, 7, 1)), gap=2)
    check_tracks(table((1, 0, 3, 0), (2, 60, 70, 1)), gap=None)
    check_tracks(table((1, 0, 3, 0), (2, 4, 4, 1), (3, 4, 4, 1), (4, 4, 4, 1)), daughters=3)


def test_the_kind_of_error_is_the_callers_choice() -> None:
    with pytest.raises(ImageError):
        check_tracks(table((1, 5, 3, 0)), error=ImageError)


@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(0, 9), st.integers(0, 9), st.integers(0, 6)), min_size=1, max_size=6
    )
)
def test_what_passes_has_no_cycle(rows: list[tuple[int, int, int, int]]) -> None:
    try:
        check_tracks(table(*rows), gap=None, daughters=6)
    except DatasetError:
        return
    parents = {row[0]: row[3] for row in rows}
    for start in parents:
        seen = set()
        while start:
            assert start not in seen
            seen.add(start)
            start = parents[start]


def test_a_lineage_paints_its_masks_with_track_numbers(sample: Any) -> None:
    assert np.array_equal(sample.truth.tracked[:], sample.masks.data)
    swapped = replace(sample.truth, track=np.where(sample.truth.track == 6, 60, sample.truth.track))
    assert set(np.unique(swapped.tracked[2])) == {0, 1, 7, 60}


def test_divisions_are_the_parents_of_two(sample: Any) -> None:
    assert sample.truth.divisions.tolist() == [1]


def test_objects_must_be_those_that_tracks_need(sample: Any) -> None:
    check_lineage(sample.truth, gap=1)
    early = replace(sample.truth, begin=np.where(sample.truth.track_id == 5, 2, sample.truth.begin))
    with pytest.raises(DatasetError, match="track 5 has no object in frame 2"):
        check_lineage(early)
    short = replace(sample.truth, end=np.where(sample.truth.track_id == 6, 4, sample.truth.end))
    with pytest.raises(DatasetError, match=r"track 6 has an object, .* in frame 5"):
        check_lineage(short, gap=1)
    double = replace(sample.truth, track=np.where(sample.truth.track == 7, 6, sample.truth.track))
    with pytest.raises(DatasetError, match="track 6 has 2 objects in frame 0"):
        check_lineage(double, gap=1)


def test_a_lineage_without_masks_says_so(sample: Any, write_sample: Callable[..., Any]) -> None:
    with pytest.raises(DatasetError, match="expected a lineage with masks, got one without"):
        _ = replace(sample.truth, masks=None).tracked


def test_frames_that_are_made_when_asked_for_can_be_sent_to_another_process() -> None:
    import pickle

    from cytoray_analysis.tracking.frames import FrameStack

    frames = np.arange(24).reshape(2, 3, 4)
    sent = pickle.loads(pickle.dumps(FrameStack(lambda index: frames[index], frames.shape, frames.dtype)))
    assert np.array_equal(sent[:], frames)
    assert np.array_equal(sent[1], frames[1])
