"""Scores of lineages, pooled over movies.

``det``, ``tra`` and ``lnk`` compare graphs (Matula et al., PLoS ONE 10, e0144959, 2015), ``seg`` is the mean Jaccard
index of cells, ``chota`` the Cell-specific Higher Order Tracking Accuracy (Kaiser et al., arXiv:2408.11571), all
computed by py-ctcmetrics; ``division_f1`` is traccuracy's: a division counts when the mother in her last frame and
both daughters in their first are those of the truth. A cell of the truth is found by the object that covers more than
half of its marker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import DatasetError
from cytoray_analysis.numbering import dense_numbers
from cytoray_analysis.tracking.lineage import Integers, Lineage

METRICS = ("division_f1", "tra", "det", "lnk", "chota", "seg")


@dataclass(frozen=True, eq=False)
class Comparison:
    """Movies of an answer and of the truth, laid one after the other, object by object.

    Parameters
    ----------
    answer, truth
        (K, 4) tracks: number, first frame, last frame, parent.
    answered, true
        Per frame, the tracks that are there.
    matched_answer, matched_truth
        Per frame, pairs of tracks: the answer's object, and the truth's whose marker it covers.
    overlaps
        Jaccard index of each outlined cell with its object, 0 where there is none.
    """

    answer: Integers
    truth: Integers
    answered: list[list[int]]
    true: list[list[int]]
    matched_answer: list[list[int]]
    matched_truth: list[list[int]]
    overlaps: list[float]


def score_lineages(answers: Sequence[Lineage], truths: Sequence[Lineage]) -> dict[str, float]:
    """Score answers against truths of the same movies.

    Returns
    -------
    dict
        ``division_f1`` first, then ``tra``, ``det``, ``lnk``, ``chota``, ``seg``, each 0 to 1. Movies count by their
        cells and divisions. ``seg`` is taken on the outlines of the truth, or on its masks where it has none.
        A score with nothing to count is absent: ``division_f1`` where neither has a division, ``lnk`` where the
        truth has no link, ``tra``, ``det`` and ``seg`` where it has no cell, ``chota`` where neither has one.

    Raises
    ------
    DatasetError
        A lineage has no masks, or answer and truth differ in their frames.
    """
    from ctc_metrics.metrics import chota, det, lnk, tra
    from ctc_metrics.utils.representations import count_acyclic_graph_correction_operations, merge_tracks

    both = compare(answers, truths)
    divisions = division_f1(both)[0]
    if not len(both.truth) or not len(both.answer):
        return _scores_of_one_side(both, divisions)
    matches = (both.matched_truth, both.matched_answer)
    counted = count_acyclic_graph_correction_operations(both.truth, both.answer, both.true, both.answered, *matches)
    true_tracks, true_labels, true_matches = merge_tracks(both.truth, both.true, both.matched_truth)
    tracks, labels, own_matches = merge_tracks(both.answer, both.answered, both.matched_answer)
    return _present(
        {
            "division_f1": divisions,
            "tra": tra(**counted)[0],
            "det": det(**counted),
            "lnk": lnk(**counted) if counted["num_edges"] else None,
            "chota": float(chota(true_tracks, tracks, true_labels, labels, true_matches, own_matches)["CHOTA"]),
            "seg": float(np.mean(both.overlaps)) if both.overlaps else None,
        }
    )


def _scores_of_one_side(both: Comparison, divisions: float | None) -> dict[str, float]:
    """Score where the truth, the answer, or both are empty: 0 for what was missed or invented."""
    cells = 0.0 if len(both.truth) else None
    linked = bool((both.truth[:, 2] > both.truth[:, 1]).any() or (both.truth[:, 3] > 0).any())
    return _present(
        {
            "division_f1": divisions,
            "tra": cells,
            "det": cells,
            "lnk": 0.0 if linked else None,
            "chota": 0.0 if len(both.truth) or len(both.answer) else None,
            "seg": cells if both.overlaps else None,
        }
    )


def _present(scores: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in scores.items() if value is not None}


def division_f1(both: Comparison, tolerance: int = 0) -> tuple[float | None, ...]:
    """Return the F1 score of divisions, exact and then within 1 to `tolerance` frames; None where there is none."""
    from traccuracy import TrackingGraph
    from traccuracy.matchers import Matched
    from traccuracy.metrics import DivisionMetrics

    matching = []
    for frame, (own, true) in enumerate(zip(both.matched_answer, both.matched_truth, strict=True)):
        covered = np.bincount(own) if own else np.zeros(1)
        matching += [((frame, b), (frame, a)) for a, b in zip(own, true, strict=True) if covered[a] == 1]
    graphs = [
        TrackingGraph(_graph(both.truth, both.true), label_key=None, location_keys=()),
        TrackingGraph(_graph(both.answer, both.answered), label_key=None, location_keys=()),
    ]
    if not any(graph.get_divisions() for graph in graphs):
        return (None,) * (tolerance + 1)
    matched = Matched(*graphs, matching, {"name": "more than half", "matching type": "one-to-one"})
    results = DivisionMetrics(max_frame_buffer=tolerance).compute(matched).results
    found = []
    for buffer in range(tolerance + 1):
        counts = results[f"Frame Buffer {buffer}"]
        right = counts["True Positive Divisions"]
        found.append(2 * right / (counts["Total GT Divisions"] + counts["Total Predicted Divisions"]))
    return tuple(found)


def compare(answers: Sequence[Lineage], truths: Sequence[Lineage]) -> Comparison:
    """Match the objects of answers to the cells of truths, frame by frame."""
    both = Comparison(np.zeros((0, 4), np.int64), np.zeros((0, 4), np.int64), [], [], [], [], [])
    for answer, truth in zip(answers, truths, strict=True):
        both = _append(both, answer, truth)
    return both


def _append(both: Comparison, answer: Lineage, truth: Lineage) -> Comparison:
    if (answer.frames, *answer.shape) != (truth.frames, *truth.shape):
        raise DatasetError(
            f"expected an answer of {truth.frames} frames of {truth.shape}, got {answer.frames} of {answer.shape}",
            field="answer",
            hint="score a lineage against the truth of the same movie",
        )
    first = len(both.true)
    # Tracks are numbered by their rank: what compares them has tables by number, and theirs may be large.
    shifts = [len(table) for table in (both.answer, both.truth)]
    answered, true, matched_answer, matched_truth, overlaps = [], [], [], [], []
    own_masks, true_masks = answer.tracked, truth.tracked
    for frame in range(truth.frames):
        own, wanted = own_masks.read(frame), true_masks.read(frame)
        pairs = _overlap(own, wanted)
        a, b, shared, _, area = pairs
        covered = 2 * shared > area
        answered.append((np.sort(_rank(answer, answer.track[answer.frame == frame])) + shifts[0]).tolist())
        true.append((np.sort(_rank(truth, truth.track[truth.frame == frame])) + shifts[1]).tolist())
        matched_answer.append((_rank(answer, a[covered]) + shifts[0]).tolist())
        matched_truth.append((_rank(truth, b[covered]) + shifts[1]).tolist())
        if frame in truth.outlines:
            outlines = truth.outlines[frame]()
            overlaps += _jaccard(np.where(outlines < 0, 0, own), np.maximum(outlines, 0))
        elif not truth.outlines:
            overlaps += _jaccard(own, wanted)
    return Comparison(
        np.concatenate((both.answer, _shifted(answer, shifts[0], first))),
        np.concatenate((both.truth, _shifted(truth, shifts[1], first))),
        both.answered + answered,
        both.true + true,
        both.matched_answer + matched_answer,
        both.matched_truth + matched_truth,
        both.overlaps + overlaps,
    )


def _overlap(
    own: NDArray[Any], true: NDArray[Any]
) -> tuple[Integers, Integers, Integers, NDArray[np.int64], NDArray[np.int64]]:
    """Return the overlapping pairs: numbers in each, shared pixels, pixels of each."""
    (one, names), (two, true_names) = dense_numbers(own.ravel()), dense_numbers(true.ravel())
    one, two = one.astype(np.int64, copy=False), two.astype(np.int64, copy=False)
    area, true_area = np.bincount(one), np.bincount(two)
    inside = (one > 0) & (two > 0)
    key, shared = np.unique(one[inside] * len(true_area) + two[inside], return_counts=True)
    a, b = key // len(true_area), key % len(true_area)
    return names[a], true_names[b], shared, area[a], true_area[b]


def _jaccard(own: NDArray[Any], true: NDArray[Any]) -> list[float]:
    """Return the Jaccard index of each cell of `true` with the object that covers more than half of it, else 0."""
    _, b, shared, area, true_area = _overlap(own, true)
    covered = 2 * shared > true_area
    cells = np.unique(true)
    cells = cells[cells > 0]
    index = np.zeros(len(cells))
    index[np.searchsorted(cells, b[covered])] = shared[covered] / (area + true_area - shared)[covered]
    return [float(value) for value in index]


def _rank(lineage: Lineage, tracks: Integers) -> Integers:
    """Return the place of tracks in the list of all, from 1."""
    return np.asarray(np.searchsorted(lineage.track_id, tracks) + 1)


def _shifted(lineage: Lineage, number: int, frame: int) -> Integers:
    """Return tracks numbered by rank after those before them, later."""
    table = lineage.table
    moved: Integers = table + np.array([0, frame, frame, 0])
    moved[:, 0] = _rank(lineage, table[:, 0]) + number
    moved[:, 3] = np.where(table[:, 3] > 0, _rank(lineage, table[:, 3]) + number, 0)
    return moved


def _graph(table: Integers, labels: list[list[int]]) -> Any:
    """Return the objects (frame, track) as a graph whose edges go forward in time."""
    import networkx

    graph: Any = networkx.DiGraph()
    graph.add_nodes_from(((frame, track), {"t": frame}) for frame, tracks in enumerate(labels) for track in tracks)
    ends = dict(zip(table[:, 0].tolist(), table[:, 2].tolist(), strict=True))
    for track, begin, end, parent in table.tolist():
        graph.add_edges_from(((frame, track), (frame + 1, track)) for frame in range(begin, end))
        if parent:
            graph.add_edge((ends[parent], parent), (begin, track))
    return graph
