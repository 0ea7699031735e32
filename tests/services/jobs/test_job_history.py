"""Jobs of this machine are described by files when the cluster that ran them has ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cytoray_analysis.errors import JobNotFoundError, PlatformError
from cytoray_services.jobs.history import KEEP_DAYS, JobHistory
from cytoray_services.jobs.job import Job
from cytoray_services.jobs.opening import open_backend
from cytoray_services.jobs.progress import epoch_line
from cytoray_services.jobs.recorder import record
from cytoray_services.settings import load_settings
from small_disks import fill, small_disk

NOW = datetime(2026, 3, 1, tzinfo=UTC)
REFUSED = '{"error": "RecipeError", "message": "no data"}'


def job(**fields: Any) -> Job:
    known = {"id": "nuclei-x7k2q", "name": "nuclei", "state": "running", "place": "local", "created": NOW}
    return Job.model_validate(known | fields)


def recorded(folder: Path, program: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "cytoray_services.jobs.recorder", str(folder), sys.executable, "-c", program]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


@pytest.fixture
def history(tmp_path: Path) -> JobHistory:
    """Give the history of a machine on which one job was running."""
    found = JobHistory(tmp_path / "ray" / "jobs")
    found.begin(job().id)
    found.keep(job(reason="Job has not started yet."))  # as Ray says of a queued job
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "state", "reason"),
    [
        ("print('epoch')", "done", None),
        ("import sys; sys.exit(143)", "cancelled", None),
        (f"print({REFUSED!r}); raise SystemExit(2)", "failed", "no data"),
        ("raise SystemExit(2)", "failed", "status 2"),
        ("import os; os.kill(os.getpid(), 9)", "failed", "signal 9: out of memory, or the Ray cluster"),
    ],
)
def test_how_a_job_ended_is_in_its_files(
    history: JobHistory, tmp_path: Path, program: str, state: str, reason: str | None
) -> None:
    process = recorded(history.folder_of(job().id), program)
    printed, _ = process.communicate(timeout=60)
    found = open_backend("local", load_settings({"CYTORAY_HOME": str(tmp_path)})).show(job().id)
    assert found.state == state
    assert found.reason is None if reason is None else reason in str(found.reason)
    assert found.ended is not None
    assert history.log(job().id) == printed.decode()
    assert history.folder_of(job().id).stat().st_mode & 0o077 == 0


def test_the_exit_status_of_the_command_is_that_of_the_recorder(tmp_path: Path) -> None:
    assert recorded(tmp_path, "import sys; sys.exit(7)").wait(60) == 7
    assert recorded(tmp_path, "import os; os.kill(os.getpid(), 15)").wait(60) == 143


@pytest.mark.slow
def test_a_stop_leaves_the_command_its_time_and_its_last_words(tmp_path: Path) -> None:
    program = """
import signal, sys, time
def stop(number, frame):
    time.sleep(0.5)
    print("saved a checkpoint", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
print("begun", flush=True)
time.sleep(60)
"""
    process = recorded(tmp_path, program)
    until = time.monotonic() + 60
    while not (tmp_path / "log").is_file() or b"begun" not in (tmp_path / "log").read_bytes():
        assert time.monotonic() < until
        time.sleep(0.05)
    child = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout
    for pid in (process.pid, int(child)):  # as Ray does it
        os.kill(pid, signal.SIGTERM)
    assert process.wait(60) == 143
    assert (tmp_path / "log").read_text() == "begun\nsaved a checkpoint\n"
    assert (tmp_path / "ended").read_text() == "143"


def test_a_full_disk_does_not_end_the_command(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 256):
        folder = tmp_path / "disk" / "job"
        folder.mkdir()
        (folder / "ended").write_text("0")  # so that there is room for it
        filling = fill(tmp_path / "disk")
        program = f"import os; print('a' * 200000, flush=True); os.unlink({str(filling)!r}); print('end')"
        printed, _ = (process := recorded(folder, program)).communicate(timeout=60)
        assert process.returncode == 0
        assert b"No space left" in printed
        assert printed.endswith(b"end\n")


def test_a_job_whose_cluster_was_ended_has_failed_and_says_so(history: JobHistory, tmp_path: Path) -> None:
    (history.folder_of(job().id) / "log").write_text(epoch_line(3, 9, 0.5, {"ap50": 0.75}, 8.0, 60) + "\n")
    backend = open_backend("local", load_settings({"CYTORAY_HOME": str(tmp_path)}))
    (found,) = backend.list()
    assert found == backend.show(job().id) == backend.stop(job().id)
    assert found.state == "failed"
    assert "cluster of this machine ended" in str(found.reason)
    assert str(found.progress).startswith("epoch 3 of 9, ap50 0.750")
    assert "".join(backend.logs(job().id, follow=True)).startswith("epoch 3/9")
    with pytest.raises(JobNotFoundError):
        backend.show("nuclei-zzzzz")


def test_what_the_cluster_said_at_the_end_counts(history: JobHistory) -> None:
    ended = job(state="cancelled", ended=NOW, seconds=5.0)
    history.keep(ended)
    assert history.find(ended.id) == ended
    history.keep(job(id="of-another-place"))
    assert [one.id for one in history.jobs()] == [ended.id]


def test_jobs_that_ended_long_ago_are_forgotten_with_the_next(history: JobHistory) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=KEEP_DAYS + 1)
    history.keep(job(state="done", ended=long_ago))
    history.begin("nuclei-22222")
    assert history.find(job().id) is None
    assert not history.folder_of(job().id).exists()


@pytest.mark.parametrize("content", ["{", "null", '{"id": 1}'])
def test_a_damaged_record_is_an_error_that_names_the_file(history: JobHistory, content: str) -> None:
    (history.folder_of(job().id) / "job.json").write_text(content)
    with pytest.raises(PlatformError, match=r"job\.json"):
        history.find(job().id)


def test_a_command_is_recorded_in_this_process_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert record(tmp_path, [sys.executable, "-c", "raise SystemExit(3)"]) == 3
