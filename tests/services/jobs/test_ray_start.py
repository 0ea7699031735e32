"""Ray is started patiently: its words are understood, a start that failed is repeated, and the error is a sentence."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from cytoray_analysis.errors import PlatformError
from cytoray_services.jobs.ray import start as ray_start
from cytoray_services.jobs.ray.start import announced, connect_ray, patience, reason_in, start_ray

LATE = "The current node timed out during startup. This could happen because some of the raylet failed to startup."
FATAL = (
    "[2026-04-23 10:28:45,980 C 26618 2200299] (raylet) node_manager.cc:3370: An unexpected system state has occurred. "
    "Check failed: statussetor3370.has_value() Timed out waiting for file /tmp/ray/session_x/{port}_bef558ddb182\n"
    "*** StackTrace Information ***\n"
)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Put a Ray in place of Ray that fails as the machine's Ray does, for the first calls that a test asks for."""
    import ray

    made: list[dict[str, Any]] = []
    monkeypatch.setattr(ray_start, "_SECONDS_BETWEEN_TRIES", 0.0)
    monkeypatch.setattr(ray_start, "require_token", lambda: None)  # another Ray of this process may have one
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return made


def let_ray_fail(monkeypatch: pytest.MonkeyPatch, calls: list[dict[str, Any]], times: int, error: Exception) -> None:
    import ray

    def init(**options: Any) -> None:
        calls.append(options | {"port": os.environ.get("RAY_GCS_SERVER_PORT"), **patience_of_environment()})
        if len(calls) <= times:
            raise error

    monkeypatch.setattr(ray, "init", init)


def patience_of_environment() -> dict[str, str]:
    return {name: os.environ[name] for name in patience() if name in os.environ}


@pytest.mark.parametrize("port", ["metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port"])
def test_the_reason_is_taken_from_the_log_of_the_node(tmp_path: Path, port: str) -> None:
    (tmp_path / "raylet.out").write_text("starting\n" + FATAL.format(port=port))
    assert "15 s" in reason_in(tmp_path)
    assert port in reason_in(tmp_path)
    assert "raylet.out" in reason_in(tmp_path)


def test_a_log_without_a_fault_gives_no_reason(tmp_path: Path) -> None:
    (tmp_path / "raylet.out").write_text("[2026-04-23 10:28:45,980 I 1 1] (raylet) main.cc:1: ready\n")
    assert reason_in(tmp_path) == ""
    assert reason_in(tmp_path / "missing") == ""


@pytest.mark.parametrize("error", [Exception(LATE), RuntimeError("Failed to connect to GCS."), TimeoutError("late")])
def test_a_start_that_fails_is_repeated(
    monkeypatch: pytest.MonkeyPatch,
    calls: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    tmp_path: Path,
) -> None:
    let_ray_fail(monkeypatch, calls, 1, error)
    start_ray(tmp_path, known=True, num_cpus=2)
    assert len(calls) == 2
    assert calls[0]["address"] == "local"
    assert calls[0]["num_cpus"] == 2
    assert calls[0]["port"] != calls[1]["port"]  # the first cluster's store may still hold its own
    assert calls[0]["RAY_raylet_start_wait_time_s"] == "300"
    assert "trying again" in capsys.readouterr().err
    assert patience_of_environment() == {}


def test_ray_that_never_starts_is_a_sentence_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, calls: list[dict[str, Any]], tmp_path: Path
) -> None:
    let_ray_fail(monkeypatch, calls, 99, Exception(LATE))
    with pytest.raises(PlatformError, match="Ray did not start in time") as raised:
        start_ray(tmp_path)
    assert len(calls) == ray_start.TRIES
    assert "busy" in str(raised.value.hint)
    assert "again" in str(raised.value.hint)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device", "/scratch/ray"), ValueError("num_cpus < 0")])
def test_what_another_try_would_not_change_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, calls: list[dict[str, Any]], error: Exception, tmp_path: Path
) -> None:
    let_ray_fail(monkeypatch, calls, 99, error)
    with pytest.raises((OSError, PlatformError)):
        start_ray(tmp_path)
    assert len(calls) == 1


def test_a_cluster_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch, calls: list[dict[str, Any]]) -> None:
    let_ray_fail(monkeypatch, calls, 99, ConnectionError("no route"))
    with pytest.raises(PlatformError, match="no Ray cluster answers at 'head:6379'"):
        connect_ray("head:6379")


def test_what_is_waited_for_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(ray_start, "SECONDS_BETWEEN_WORDS", 0.05)
    with announced("Ray to start"):
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert lines[0].startswith("waiting for Ray to start (")
