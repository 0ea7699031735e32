"""What a service keeps warm, as the one that takes its place reads it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cytoray_analysis.errors import CytorayError
from cytoray_services.settings import load_settings
from cytoray_serving.replica.options import ReplicaOptions
from cytoray_serving.service.autoscaling import MegapixelsWaiting, scaling
from cytoray_serving.service.config import Replicas
from cytoray_serving.service.deployments import load_unasked
from cytoray_serving.service.warmth import FRESH_SECONDS, SharedUse, WarmthRecord, read_warmth

NOW = 1_000_000_000.0


def test_the_next_service_reads_what_was_warm(tmp_path: Path) -> None:
    record = WarmthRecord(tmp_path, lambda: {"nuclei@champion": 3, "cells@champion": 0, "shared": 1})
    record.used(SharedUse(("stain@champion", "old@champion")), now=NOW - FRESH_SECONDS - 1)
    record.used(SharedUse(("stain@champion", "bloodcells/2")), now=NOW - 1)
    record.write(now=NOW)
    found = read_warmth(tmp_path, now=NOW + 1)
    assert found.replicas == {"nuclei@champion": 3, "shared": 1}
    assert set(found.shared) == {"stain@champion", "bloodcells/2"}


def test_a_folder_is_no_model_that_shared_replicas_load(tmp_path: Path) -> None:
    record = WarmthRecord(tmp_path, lambda: {"shared": 1})
    record.used(SharedUse(("/srv/bundle", "../bundle", "stain@champion")), now=NOW)
    record.write(now=NOW)
    assert read_warmth(tmp_path, now=NOW).shared == ("stain@champion",)


def test_of_several_services_the_most_replicas_count(tmp_path: Path) -> None:
    for found in ({"nuclei": 1}, {"nuclei": 4, "cells": 1}, {"nuclei": 2}):
        WarmthRecord(tmp_path, found.copy).write(now=NOW)
    assert len(list(tmp_path.glob("*.json"))) == 3
    assert read_warmth(tmp_path, now=NOW).replicas == {"nuclei": 4, "cells": 1}


@pytest.mark.parametrize("ago", [FRESH_SECONDS + 1, -3600.0])
def test_what_is_old_or_of_the_future_counts_no_more(tmp_path: Path, ago: float) -> None:
    WarmthRecord(tmp_path, lambda: {"nuclei": 1}).write(now=NOW - ago)
    assert not read_warmth(tmp_path, now=NOW).replicas


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"written": "yesterday"}',
        b'{"written": 1e9, "replicas": {"nuclei": "many"}}',
        b'{"written": 1e9, "shared": ' + json.dumps(["a"] * 5000).encode() + b"}",
        b'{"written": 1e9, "shared": ["' + b"a" * 2**21 + b'"]}',
    ],
)
def test_a_damaged_record_is_left_out_and_said(
    tmp_path: Path, damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    WarmthRecord(tmp_path, lambda: {"nuclei": 2}).write(now=NOW)
    (tmp_path / "damaged.json").write_bytes(damaged)
    (tmp_path / "folder.json").mkdir()
    assert read_warmth(tmp_path, now=NOW).replicas == {"nuclei": 2}
    assert "damaged.json" in caplog.text


def test_a_service_that_stops_leaves_what_it_had(tmp_path: Path) -> None:
    running: list[dict[str, int] | None] = [None, {"nuclei": 2}]
    record = WarmthRecord(tmp_path, running.pop)
    record.write(now=NOW)
    record.write(now=NOW + 1)
    assert read_warmth(tmp_path, now=NOW + 1).replicas == {"nuclei": 2}


def test_there_need_be_no_record(tmp_path: Path) -> None:
    assert read_warmth(tmp_path / "warm", now=NOW).replicas == {}


def test_old_records_are_removed(tmp_path: Path) -> None:
    WarmthRecord(tmp_path, lambda: {"nuclei": 2}).write()
    (old,) = tmp_path.glob("*.json")
    os.utime(old, (time.time() - 3 * FRESH_SECONDS,) * 2)
    WarmthRecord(tmp_path, dict).write()
    assert not old.exists()


def idle(running: int) -> Any:
    return SimpleNamespace(
        aggregated_metrics={}, total_queued_requests=0.0, total_num_requests=0.0, current_num_replicas=running
    )


@pytest.mark.parametrize(
    ("seconds", "running", "expected"), [(10, 0, 3), (10, 3, 3), (400, 3, 3), (400, 1, 1), (700, 3, 0)]
)
def test_replicas_are_kept_until_requests_come_but_no_place_is_waited_for_long(
    seconds: float, running: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cytoray_serving.service.autoscaling.time.time", lambda: NOW + seconds)
    assert MegapixelsWaiting(8.0, warm=3, since=NOW)(idle(running))[0] == expected


@pytest.mark.parametrize(
    ("least", "most", "before", "first"), [(0, 4, 0, 0), (0, 4, 3, 3), (0, 2, 9, 2), (1, 4, 0, 1), (2, 4, 1, 2)]
)
def test_a_deployment_begins_with_as_many_as_before_within_its_limits(
    least: int, most: int, before: int, first: int
) -> None:
    replicas = Replicas(min_replicas=least, max_replicas=most)
    assert scaling(replicas, before)["autoscaling_config"].initial_replicas == first


def test_a_model_that_does_not_load_is_left_for_whoever_asks(
    bundle_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load_settings({"CYTORAY_HOME": str(tmp_path)})
    loaded = load_unasked(["ghosts@champion", str(bundle_folder)], settings, ReplicaOptions(threads=1))
    assert list(loaded) == [str(bundle_folder)]
    assert "ghosts@champion is not loaded in advance" in caplog.text
    assert not isinstance(loaded[str(bundle_folder)], CytorayError)
