"""Checkpoints come back as they were written, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cytoray_analysis.errors import TrainingError
from cytoray_training.run.checkpoint import (
    BEST,
    DOCUMENT,
    STATE,
    SUMS,
    Checkpoint,
    TrainingProgress,
    load_checkpoint,
    save_checkpoint,
)
from cytoray_training.run.reporter import FolderReporter


def a_checkpoint(step: int = 7) -> Checkpoint:
    progress = TrainingProgress(
        epoch=2,
        step=step,
        seed=5,
        elapsed=12.5,
        stale=1,
        history=({"epoch": 0.0, "loss": 1.5}, {"epoch": 1.0, "loss": 1.25, "ap50": 0.5}),
        best={"ap50": 0.5, "epoch": 1.0},
        sums={"loss": 3.0},
    )
    state = {"weights/a": torch.rand(3, 4), "steps": torch.tensor(step)}
    return Checkpoint(progress, state, {"a": torch.rand(3, 4)})


def test_a_checkpoint_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = a_checkpoint()
    save_checkpoint(tmp_path / "c", written)
    read = load_checkpoint(tmp_path / "c")
    assert read.progress == written.progress
    assert read.state.keys() == written.state.keys()
    assert all(torch.equal(read.state[name], written.state[name]) for name in written.state)
    assert read.best is not None
    assert written.best is not None
    assert torch.equal(read.best["a"], written.best["a"])


def test_it_holds_safetensors_and_json_only(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", a_checkpoint())
    assert {path.name for path in (tmp_path / "c").iterdir()} == {STATE, BEST, DOCUMENT, SUMS}


@pytest.mark.parametrize("name", [STATE, BEST, DOCUMENT])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str) -> None:
    save_checkpoint(tmp_path / "c", a_checkpoint())
    path = tmp_path / "c" / name
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(TrainingError, match="cannot be read"):
        load_checkpoint(tmp_path / "c")


def test_a_pickle_in_place_of_the_state_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", a_checkpoint())
    torch.save({"weights": torch.rand(2)}, tmp_path / "c" / STATE)
    with pytest.raises(TrainingError, match="cannot be read"):
        load_checkpoint(tmp_path / "c")


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    shared = torch.rand(4)
    broken = Checkpoint(TrainingProgress(), {"a": shared, "b": shared}, None)  # safetensors refuses shared memory
    with pytest.raises(RuntimeError):
        save_checkpoint(tmp_path / "c", broken)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_keeps_the_newest_two(tmp_path: Path) -> None:
    reporter = FolderReporter(tmp_path)
    assert reporter.latest() is None
    for step in (2, 10, 9, 100):
        reporter.report({}, a_checkpoint(step))
    newest = reporter.latest()
    assert newest is not None
    assert newest.progress.step == 100
    assert len(list(tmp_path.iterdir())) == 2
