from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytoray_analysis.tracking.chota import chota

FRAMES = 8


def reference(truth: Any, answer: Any, true: Any, answered: Any, matched_truth: Any, matched_answer: Any) -> float:
    from ctc_metrics.metrics import chota as known
    from ctc_metrics.utils.representations import merge_tracks

    truth, true, matched_truth = merge_tracks(truth, true, matched_truth)
    answer, answered, matched_answer = merge_tracks(answer, answered, matched_answer)
    true = [np.array(one, np.int64) for one in true]  # it cannot read a frame without a cell from a list
    return float(known(truth, answer, true, answered, matched_truth, matched_answer)["CHOTA"])


def draw_tracks(chance: np.random.Generator, count: int) -> tuple[np.ndarray, list[list[int]]]:
    """Draw tracks of which some divide, some go on after a gap, in an order that says nothing about their parents."""
    rows: list[list[int]] = []
    for _ in range(count):
        begin = int(chance.integers(FRAMES))
        end = min(FRAMES - 1, begin + int(chance.integers(4)))
        mothers = [at for at, row in enumerate(rows) if row[2] < begin and sum(one[3] == at + 1 for one in rows) < 2]
        parent = int(chance.choice(mothers)) + 1 if mothers and chance.random() < 0.8 else 0
        rows.append([len(rows) + 1, begin, end, parent])
    order = chance.permutation(count) + 1
    number = np.concatenate(([0], order))
    table = np.array(rows)
    table[:, 0], table[:, 3] = number[table[:, 0]], number[table[:, 3]]
    table = table[np.argsort(table[:, 0])]
    return table, [sorted(table[(table[:, 1] <= t) & (table[:, 2] >= t), 0].tolist()) for t in range(FRAMES)]


@pytest.mark.slow
@given(seed=st.integers(0, 2**32 - 1), cells=st.integers(1, 14), own=st.integers(1, 14), found=st.floats(0.0, 1.0))
@settings(max_examples=150, deadline=None)
def test_chota_is_that_of_py_ctcmetrics(seed: int, cells: int, own: int, found: float) -> None:
    chance = np.random.default_rng(seed)
    (truth, true), (answer, answered) = draw_tracks(chance, cells), draw_tracks(chance, own)
    matched_truth: list[list[int]] = []
    matched_answer: list[list[int]] = []
    for there, candidates in zip(true, answered, strict=True):
        kept = [cell for cell in there if candidates and chance.random() < found]
        matched_truth.append(kept)
        matched_answer.append([int(chance.choice(candidates)) for _ in kept])  # an object may cover several cells
    given_ = (truth, answer, true, answered, matched_truth, matched_answer)
    assert chota(*given_) == reference(*given_)


def test_chota_of_thousands_of_cells_is_quick() -> None:
    """Wide families: each of 500 cells divides three times. py-ctcmetrics takes minutes."""
    import time

    rows: list[list[int]] = []
    begin = 1
    for generation in range(4):
        for at in range(500 * 2**generation):
            parent = rows[begin - 1 - 500 * 2 ** (generation - 1) + at // 2][0] if generation else 0
            rows.append([begin + at, 2 * generation, 2 * generation + 1, parent])
        begin += 500 * 2**generation
    table = np.array(rows)
    labels = [table[(table[:, 1] <= t) & (table[:, 2] >= t), 0].tolist() for t in range(FRAMES)]
    began = time.perf_counter()
    assert chota(table, table, labels, labels, labels, labels) == pytest.approx(1.0)
    assert time.perf_counter() - began < 5
