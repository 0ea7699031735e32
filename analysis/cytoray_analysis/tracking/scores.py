"""Scores of lineages, pooled over movies.

``det``, ``tra`` and ``lnk`` compare graphs (Matula et al., PLoS ONE 10, e0144959, 2015), whose differences
py-ctcmetrics counts; ``seg`` is the mean Jaccard index of cells, ``chota`` the Cell-specific Higher Order Tracking
Accuracy (Kaiser et al., arXiv:2408.11571); ``division_f1`` is traccuracy's: a division counts when the mother in her
last frame and both daughters in their first are those of the truth. A cell of the truth is found by the object that
covers more than half of its marker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import DatasetError
from cytoray_analysis.numbering import dense_numbers
from cytoray_analysis.tracking.chota import chota
from cytoray_analysis.tracking.frames import FrameStack
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
    from ctc_metrics.metrics import det, lnk, tra
    from ctc_metrics.utils.representations import count_acyclic_graph_correction_operations

    both = compare(answers, truths)
    divisions = division_f1(both)[0]
    if not len(both.truth) or not len(both.answer):
        return _scores_of_one_side(both, divisions)
    matches = (both.matched_truth, both.matched_answer)
    counted = count_acyclic_graph_correction_operations(both.truth, both.answer, both.true, both.answered, *matches)
    return _present(
        {
            "division_f1": divisions,
            "tra": tra(**counted)[0],
            "det": det(**counted),
            "lnk": lnk(**counted) if counted["num_edges"] else None,
            "chota": chota(both.truth, both.answer, both.true, both.answered, *matches),
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
    nothing = np.zeros((0, 4), np.int64)
    both = Comparison(nothing, nothing, [], [], [], [], [])
    own_tables, true_tables = [nothing], [nothing]
    shift = true_shift = 0  # tracks before those of a movie
    for answer, truth in zip(answers, truths, strict=True):
        if (answer.frames, *answer.shape) != (truth.frames, *truth.shape):
            raise DatasetError(
                f"expected an answer of {truth.frames} frames of {truth.shape}, got {answer.frames} of {answer.shape}",
                field="answer",
                hint="score a lineage against the truth of the same movie",
            )
        own_tables.append(_shifted(answer, shift, len(both.true)))
        true_tables.append(_shifted(truth, true_shift, len(both.true)))
        starts = np.searchsorted(answer.frame, np.arange(answer.frames + 1))
        for frame, known in enumerate(_coverings(answer, truth)):
            here = slice(starts[frame], starts[frame + 1])
            tracks = _tracks_of(known.objects, answer.label[here], answer.track[here])
            outlined = _tracks_of(known.outlined, answer.label[here], answer.track[here])
            both.answered.append((np.sort(_rank(answer, answer.track[here])) + shift).tolist())
            both.true.append((np.sort(_rank(truth, truth.track[truth.frame == frame])) + true_shift).tolist())
            both.matched_answer.append((_rank(answer, tracks[tracks > 0]) + shift).tolist())
            both.matched_truth.append((_rank(truth, known.cells[tracks > 0]) + true_shift).tolist())
            both.overlaps.extend(np.where(outlined > 0, known.jaccard, 0.0).tolist())
        shift, true_shift = shift + len(answer.track_id), true_shift + len(truth.track_id)
    return replace(both, answer=np.concatenate(own_tables), truth=np.concatenate(true_tables))


@dataclass(frozen=True, eq=False)
class _Covering:
    """Which objects of a frame cover cells of the truth, by their numbers in the masks, whatever tracks they are on.

    Parameters
    ----------
    objects, cells
        Pairs: an object, and the track of a cell more than half of whose marker it covers.
    outlined, jaccard
        Of each outlined cell the object that covers more than half of it, 0 for none, and their Jaccard index.
    """

    objects: Integers
    cells: Integers
    outlined: Integers
    jaccard: NDArray[np.float64]


# Decoding and overlaying masks takes most of the time, and fitting and intervals score the same ones again and again.
_KNOWN: WeakKeyDictionary[FrameStack, WeakKeyDictionary[Lineage, list[_Covering]]] = WeakKeyDictionary()


def _coverings(answer: Lineage, truth: Lineage) -> list[_Covering]:
    """Lay the masks of an answer over a truth, frame by frame; done once as long as both are there."""
    masks = answer.labelled
    known = _KNOWN.setdefault(masks, WeakKeyDictionary())
    if truth not in known:
        known[truth] = [_covering(masks.read(frame), truth, frame) for frame in range(truth.frames)]
    return known[truth]


def _covering(own: NDArray[Any], truth: Lineage, frame: int) -> _Covering:
    wanted = truth.tracked.read(frame)
    a, b, shared, _, area = _overlap(own, wanted)
    covered = 2 * shared > area
    outlined, jaccard = np.zeros(0, np.int64), np.zeros(0)
    if frame in truth.outlines:
        outlines = truth.outlines[frame]()
        outlined, jaccard = _jaccard(np.where(outlines < 0, 0, own), np.maximum(outlines, 0))
    elif not truth.outlines:
        outlined, jaccard = _jaccard(own, wanted)
    return _Covering(a[covered], b[covered], outlined, jaccard)


def _tracks_of(objects: Integers, label: Integers, track: Integers) -> Integers:
    """Return the tracks of objects, given those of all that are on one; 0 for an object on none."""
    if not len(label):
        return np.zeros(len(objects), np.int64)
    order = np.argsort(label)
    place = np.searchsorted(label[order], objects).clip(max=len(label) - 1)
    return np.where(label[order][place] == objects, track[order][place], 0)


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


def _jaccard(own: NDArray[Any], true: NDArray[Any]) -> tuple[Integers, NDArray[np.float64]]:
    """Return for each cell of `true` the object that covers more than half of it, else 0, and their Jaccard index."""
    a, b, shared, area, true_area = _overlap(own, true)
    covered = 2 * shared > true_area
    cells = np.unique(true)
    cells = cells[cells > 0]
    objects, index = np.zeros(len(cells), np.int64), np.zeros(len(cells))
    place = np.searchsorted(cells, b[covered])
    objects[place] = a[covered]
    index[place] = shared[covered] / (area + true_area - shared)[covered]
    return objects, index


def _rank(lineage: Lineage, tracks: Integers) -> Integers:
    """Return the place of tracks in the list of all, from 1."""
    return np.asarray(np.searchsorted(lineage.track_id, tracks) + 1)


def _shifted(lineage: Lineage, number: int, frame: int) -> Integers:
    """Return tracks numbered by rank after those before them, later.

    By rank, since what compares them has tables by number, and their own may be large.
    """
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
