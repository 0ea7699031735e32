"""A signal becomes a stop file; the end comes when all is saved, at the end of the block, or when time is up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cytoray_services.stopping import StoppedError
from cytoray_training.run import stopping
from cytoray_training.run.stopping import STOP, StopFile, saved_when_stopped


def ask(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def stopped(folder: Path, work: Callable[[], None], **options: Any) -> StoppedError:
    """Ask for the end of `work`, and return what it ended with."""

    def run() -> None:
        with saved_when_stopped(folder, **{"may_save": lambda: True, **options}):
            work()

    with pytest.raises(StoppedError) as raised:
        run()
    assert not (folder / STOP).exists()
    return raised.value


def ask_and_go_on() -> None:
    ask()
    time.sleep(30)
    pytest.fail("it went on")


def test_before_there_is_anything_to_save_the_end_comes_at_once(tmp_path: Path) -> None:
    error = stopped(tmp_path, ask_and_go_on, may_save=lambda: False)
    assert error.exit_status == 143
    assert "again" in str(error.hint)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_block_ends_by_itself_when_its_workers_have_saved(tmp_path: Path, number: int, status: int) -> None:
    seen = []

    def work() -> None:
        ask(number)
        seen.append(StopFile(tmp_path)())

    assert stopped(tmp_path, work).exit_status == status
    assert seen == [True]


@pytest.mark.slow
def test_a_block_that_does_not_end_is_ended_when_all_is_saved(tmp_path: Path) -> None:
    (tmp_path / "saved").touch()
    stopped(tmp_path, ask_and_go_on, saved=(tmp_path / "saved").exists)


@pytest.mark.slow
def test_a_block_that_does_not_save_is_ended_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "SECONDS_TO_SAVE", 0.2)
    stopped(tmp_path, ask_and_go_on)


def test_workers_that_are_lost_while_they_save_are_no_failure(tmp_path: Path) -> None:
    def work() -> None:
        ask()
        raise RuntimeError("a worker died")

    stopped(tmp_path, work)


def test_without_a_signal_nothing_changes(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)]
    (tmp_path / STOP).touch()  # of a command that was killed
    with saved_when_stopped(tmp_path, may_save=lambda: True):
        assert not StopFile(tmp_path)()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)] == before


def test_a_study_stops_the_trainings_in_it(tmp_path: Path) -> None:
    (tmp_path / "trial-001").mkdir()
    (tmp_path / STOP).touch()
    assert StopFile(tmp_path / "trial-001")()
