from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cytoray_analysis.errors import DatasetError
from cytoray_analysis.tracking.frames import FrameStack
from cytoray_analysis.tracking.lineage import Lineage
from cytoray_analysis.tracking.scores import METRICS, compare, division_f1, score_lineages


def without(lineage: Lineage, track: int) -> Lineage:
    kept, tracks = lineage.track != track, lineage.track_id != track
    parent = np.where(lineage.parent == track, 0, lineage.parent)
    return replace(
        lineage,
        **{name: getattr(lineage, name)[tracks] for name in ("track_id", "begin", "end")},
        parent=parent[tracks],
        **{name: getattr(lineage, name)[kept] for name in ("frame", "track", "label", "centroid", "box")},
    )


@pytest.mark.parametrize("depth", [None, 5])
def test_the_truth_scores_one_everywhere(write_sample: Callable[..., Any], depth: int | None) -> None:
    truth = write_sample(depth).truth
    found = score_lineages([truth, truth], [truth, truth])
    assert list(found) == list(METRICS)
    assert next(iter(found)) == "division_f1"
    assert found == pytest.approx(dict.fromkeys(METRICS, 1.0))


def test_no_movies_have_no_score() -> None:
    assert score_lineages([], []) == {}


def test_without_a_division_division_f1_is_absent(sample: Any) -> None:
    truth = replace(sample.truth, parent=np.zeros_like(sample.truth.parent))
    assert set(score_lineages([truth], [truth])) == set(METRICS) - {"division_f1"}


def test_scores_do_not_hang_on_the_numbers_of_tracks(sample: Any) -> None:
    truth = sample.truth
    far = replace(
        truth,
        track_id=truth.track_id + 2**40,
        track=truth.track + 2**40,
        parent=np.where(truth.parent > 0, truth.parent + 2**40, 0),
    )
    assert score_lineages([far], [truth]) == score_lineages([truth], [far]) == score_lineages([truth], [truth])


def test_a_lost_division_shows_in_division_f1_and_hardly_in_tra(sample: Any) -> None:
    truth = sample.truth
    answer = replace(truth, parent=np.where(truth.parent == 1, 0, truth.parent))
    found = score_lineages([answer], [truth])
    assert found["division_f1"] == 0.0
    assert found["det"] == 1.0
    assert 0.95 < found["tra"] < 1.0
    edges = len(truth.track) - len(truth.track_id) + 3
    assert found["lnk"] == pytest.approx(1 - 2 / edges)


def test_a_missed_cell_costs_what_matula_says(sample: Any) -> None:
    truth = sample.truth
    found = score_lineages([without(truth, 7)], [truth])
    nodes = len(truth.track)
    assert found["det"] == pytest.approx(1 - 4 / nodes)
    assert found["seg"] == pytest.approx(1 - 4 / nodes)
    assert found["division_f1"] == 1.0


def test_invented_divisions_count(sample: Any) -> None:
    truth = sample.truth
    answer = replace(truth, parent=np.where(truth.parent == 1, 0, truth.parent))
    assert score_lineages([truth], [answer])["division_f1"] == 0.0
    assert score_lineages([truth, truth], [answer, truth])["division_f1"] == pytest.approx(2 / 3)


def test_a_division_a_frame_late_counts_within_one_frame(sample: Any) -> None:
    truth = sample.truth
    # The mother takes over the first frame of one daughter, and loses the other's.
    late = without(truth, 0)
    takes = (late.frame == 3) & (late.track == 2)
    lost = (late.frame == 3) & (late.track == 3)
    columns = {name: getattr(late, name)[~lost] for name in ("frame", "label", "centroid", "box")}
    late = replace(
        late,
        track=np.where(takes, 1, late.track)[~lost],
        begin=np.where(np.isin(late.track_id, (2, 3)), 4, late.begin),
        end=np.where(late.track_id == 1, 3, late.end),
        **columns,
    )
    assert division_f1(compare([late], [truth]), 1) == (0.0, 1.0)


def test_seg_is_taken_on_outlines_where_there_are_some(sample: Any) -> None:
    truth = sample.truth
    outline = truth.masks.read(1).astype(np.int32)
    outline[outline == 7] = 0
    outline[30:50, 30:40] = 9  # a cell that nothing covers
    assert score_lineages([truth], [replace(truth, outlines={1: lambda: outline})])["seg"] == pytest.approx(3 / 4)


def test_division_scores_agree_with_those_of_the_challenge(sample: Any) -> None:
    from ctc_metrics.metrics import raw_division_metrics

    truth = sample.truth
    for answer in (truth, without(truth, 2), replace(truth, parent=np.where(truth.parent == 1, 0, truth.parent))):
        both = compare([answer], [truth])
        right, wrong, missed = raw_division_metrics(
            both.answer, both.truth, both.matched_truth, both.matched_answer, i=0
        )
        assert division_f1(both)[0] == pytest.approx(2 * right / (2 * right + wrong + missed))


def test_a_truth_with_a_frame_without_cells_is_scored(sample: Any) -> None:
    truth = sample.truth
    for track in (2, 3, 5):
        truth = without(truth, track)
    kept = truth.frame < 5  # nothing is there in the last frame
    columns = {name: getattr(truth, name)[kept] for name in ("frame", "track", "label", "centroid", "box")}
    truth = replace(truth, end=np.minimum(truth.end, 4), **columns)
    assert score_lineages([truth], [truth]) == pytest.approx(dict.fromkeys(("tra", "det", "lnk", "chota", "seg"), 1.0))


def test_masks_are_laid_over_the_truth_once(sample: Any) -> None:
    read: list[int] = []

    def counted(frame: int) -> Any:
        read.append(frame)
        return sample.truth.masks.read(frame)

    truth = sample.truth
    answer = replace(truth, masks=FrameStack(counted, (6, *truth.shape), truth.masks.dtype))
    without_division = replace(answer, parent=np.where(answer.parent == 1, 0, answer.parent))
    first, second = score_lineages([answer], [truth]), score_lineages([without_division], [truth])
    assert read == list(range(6))
    assert (first["division_f1"], second["division_f1"]) == (1.0, 0.0)


def test_empty_answers_score_zero(sample: Any) -> None:
    truth = sample.truth
    nothing = truth
    for track in range(1, 8):
        nothing = without(nothing, track)
    assert set(score_lineages([nothing], [truth]).values()) == {0.0}
    assert score_lineages([nothing], [nothing]) == {}


def test_movies_of_other_lengths_are_refused(sample: Any) -> None:
    truth = sample.truth
    short = replace(truth, frames=5, masks=FrameStack(truth.masks.read, (5, *truth.shape), truth.masks.dtype))
    with pytest.raises(DatasetError, match="expected an answer of 6 frames"):
        score_lineages([short], [truth])
