"""Callers at a fixed pace while a gateway, a replica, the controller and HAProxy of a live service are killed.

A minute of what ``tests/bench/kills.py`` does for ten.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "bench"))

from kills import arguments, faults_of, rows_of, run, table_of

pytestmark = [pytest.mark.attacks, pytest.mark.long, pytest.mark.ray, pytest.mark.timeout(900)]


def test_killed_processes_cost_callers_no_more_than_they_may(tmp_path: Path) -> None:
    words = arguments(["--requests", "900", "--each", "1", "--proxies", "1", "--moves", "2"])
    asked, kills = run(words, tmp_path)
    rows = rows_of(asked, kills)
    assert [kill.kind for kill in kills] == ["gateway", "replica", "controller", "haproxy"]
    assert not faults_of(rows), table_of(rows)
