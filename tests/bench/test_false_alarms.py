"""docs/false-alarms.md says what was counted."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from check_false_alarms import tracks_within
from false_alarms import COUNTS, PAGE, Found, SetCounts, check_table, page


def test_the_page_is_what_its_counts_give() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page(text, json.loads(COUNTS.read_text())) == text, "run python tests/bench/false_alarms.py"


def test_a_row_counts_the_sets_that_its_code_is_about() -> None:
    found = (Found("warning", "empty-mask", True, 3, 5),)
    counts = [SetCounts("nuclei", "labels", 50, 10, found), SetCounts("cells", "class", 70, 10, ())]
    (row,) = [line for line in check_table(counts, counted=False).splitlines() if line.startswith("| `empty-mask`")]
    assert "| 1 of 1 (" in row
    assert "| 5 of 10 (" in row
    assert "| 3 of 50 (" in row


def test_a_finding_that_no_row_is_about_is_not_lost() -> None:
    counts = [SetCounts("nuclei", "labels", 50, 10, (Found("error", "empty-mask", False, 0, 1),))]
    rows = [
        line for line in check_table(counts, counted=False).splitlines() if line.startswith("| `empty-mask` | error")
    ]
    assert len(rows) == 1
    assert "1 of 10 (" in rows[0]
    stranger = [SetCounts(**{**asdict(counts[0]), "found": (Found("error", "no-such-code", True, 0, 1),)})]
    with pytest.raises(ValueError, match="no-such-code"):
        check_table(stranger, counted=False)


def test_tracks_of_a_window_begin_at_its_first_frame_and_forget_parents_outside() -> None:
    table = [(1, 0, 3, 0), (2, 4, 9, 1), (3, 4, 5, 1), (4, 6, 9, 3)]
    assert tracks_within(table, 5, 8) == [(2, 0, 3, 0), (3, 0, 0, 0), (4, 1, 3, 3)]
    assert tracks_within(table, 6, 8) == [(2, 0, 2, 0), (4, 0, 2, 0)]
