"""Which run a command writes to."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cytoray_analysis.errors import PlatformError, TrainingError
from cytoray_training.plan.plan import Plan
from cytoray_training.run.checkpoint import TrainingProgress
from cytoray_training.run.loop import train
from cytoray_training.run.reporter import FolderReporter
from cytoray_training.run.runs import claim_run

MakePlan = Callable[..., Plan]


def test_an_interrupted_run_is_gone_on_with(make_plan: MakePlan) -> None:
    with claim_run(make_plan(), fresh=False) as first:
        assert first.run_id is None
        first.noting(run_id="abc")
    with claim_run(make_plan(), fresh=False) as second:
        assert (second.folder, second.run_id) == (first.folder, "abc")
    assert re.fullmatch(r"tiny-[0-9a-f]{12}-1", first.folder.name)


def test_a_finished_run_is_not(make_plan: MakePlan) -> None:
    with claim_run(make_plan(), fresh=False) as first:
        first.noting(run_id="abc", finished=True)
    with claim_run(make_plan(), fresh=False) as second:
        assert second.run_id is None
        assert second.folder.name.endswith("-2")


def test_fresh_begins_again(make_plan: MakePlan) -> None:
    with claim_run(make_plan(), fresh=False) as first:
        first.noting(run_id="abc")
    with claim_run(make_plan(), fresh=True) as second:
        assert second.folder != first.folder
        assert second.run_id is None


def test_another_recipe_is_another_run_but_more_workers_are_not(make_plan: MakePlan) -> None:
    with claim_run(make_plan(), fresh=False) as first, claim_run(make_plan(seed=1), fresh=False) as other:
        assert first.folder.name[:-2] != other.folder.name[:-2]
    assert make_plan(scale={"workers": 2}).identity == make_plan().identity


def test_two_processes_do_not_train_the_same_run(make_plan: MakePlan) -> None:
    with (
        claim_run(make_plan(), fresh=False),
        pytest.raises(TrainingError, match="another process"),
        claim_run(make_plan(), fresh=False),
    ):
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"colour": 1}', b"\xff"])
def test_a_damaged_record_is_named_and_a_fresh_training_does_without(make_plan: MakePlan, content: bytes) -> None:
    with claim_run(make_plan(), fresh=False) as first:
        (first.folder / "run.json").write_bytes(content)
    with pytest.raises(PlatformError, match=r"run\.json"), claim_run(make_plan(), fresh=False):
        pass
    shutil.copytree(first.folder, first.folder.with_name(f"{first.folder.name}.bak"))
    with claim_run(make_plan(), fresh=True) as second:
        assert second.folder != first.folder


HOW = {"engine": "deepspeed", "zero_stage": 2, "accumulate": 2, "checkpoint_every": 3}


def train_some(plan: Plan, folder: Path, *, epochs: int) -> TrainingProgress:
    """Train a few epochs in this process, as if the command were stopped after them."""

    class Stopping(FolderReporter):
        def stopping(self) -> bool:
            latest = self.latest()
            return latest is not None and latest.progress.epoch >= epochs

    return train(plan, Stopping(folder), device=torch.device("cpu"))


def test_how_a_step_is_computed_is_no_part_of_the_identity(make_plan: MakePlan) -> None:
    for name, value in HOW.items():
        assert make_plan(**{name: value}).identity == make_plan().identity, name
    for name, value in {"batch_size": 8, "precision": "fp32", "minutes": 9, "seed": 1}.items():
        assert make_plan(**{name: value}).identity != make_plan().identity, name


@pytest.mark.slow
def test_a_run_goes_on_with_other_passes_and_its_record_says_what_changed(
    make_plan: MakePlan, capsys: pytest.CaptureFixture[str]
) -> None:
    with claim_run(make_plan(), fresh=False) as first:
        first.noting(run_id="abc")
        trained_before = train_some(make_plan(), first.folder, epochs=1)
    changed = make_plan(accumulate=2, checkpoint_every=3)
    with claim_run(changed, fresh=False) as second:
        assert (second.folder, second.run_id) == (first.folder, "abc")
        progress = train_some(changed, second.folder, epochs=2)
        assert progress.epoch == 2
        assert progress.history[0] == trained_before.history[0]
        second.noting()
    with claim_run(changed, fresh=False) as third:
        assert set(third.tags) == {"changed.training.accumulate", "changed.training.checkpoint_every"}
        assert third.tags["changed.training.accumulate"].startswith("1 → 2 ")
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("continuing ")]
    assert len(said) == 1
    assert "training.accumulate 2 instead of 1" in said[0]
    assert first.folder.name in said[0]


def test_a_similar_run_that_lies_unfinished_is_named_with_the_way_back_to_it(
    make_plan: MakePlan, capsys: pytest.CaptureFixture[str]
) -> None:
    with claim_run(make_plan(seed=1, metric="ap50"), fresh=False) as first:
        first.noting(run_id="abc")
        with claim_run(make_plan(seed=2), fresh=False):
            pass
        assert capsys.readouterr().err == ""  # it is under way
    with claim_run(make_plan(seed=2), fresh=True):
        pass
    assert capsys.readouterr().err == ""  # with --fresh it is known
    with claim_run(make_plan(seed=3, learning_rate=1e-4, epochs=9, ema_decay=0.5), fresh=False):
        pass
    assert capsys.readouterr().err == ""  # it is another one

    with claim_run(make_plan(seed=0), fresh=False):
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert first.folder.name in line
    assert "is unfinished before its first checkpoint" in line
    assert "training.seed 1 instead of 0" in line
    assert line.endswith("--set training.metric=ap50 --set training.seed=1")

    with claim_run(make_plan(seed=1, metric="ap50"), fresh=False) as first:
        first.noting(finished=True)
    with claim_run(make_plan(seed=4), fresh=False):
        pass
    assert capsys.readouterr().err == ""
