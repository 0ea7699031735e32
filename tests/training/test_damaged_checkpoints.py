"""A damaged checkpoint is found, and the training goes on from the one before it by itself, and says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from cytoray_analysis.errors import TrainingError
from cytoray_training.plan.plan import Plan
from cytoray_training.run.checkpoint import (
    BEST,
    DOCUMENT,
    STATE,
    SUMS,
    Checkpoint,
    TrainingProgress,
    load_checkpoint,
    load_progress,
    save_checkpoint,
)
from cytoray_training.run.kept_checkpoints import newest_checkpoint, newest_progress
from cytoray_training.run.launch import launch
from cytoray_training.run.reporter import PROGRESS, FolderReporter

MakePlan = Callable[..., Plan]
NOTE = "checkpoint_manager_snapshot.json"


def a_checkpoint(step: int) -> Checkpoint:
    progress = TrainingProgress(epoch=1, step=step, best={"ap50": 0.5, "epoch": 0.0})
    return Checkpoint(progress, {"weights/a": torch.full((64,), float(step))}, {"a": torch.rand(64)})


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut short": cut_short,
    "empty": empty,
    "bit flipped": flip_a_bit,
    "missing": Path.unlink,
}
EVERY = [(name, damage) for name in (STATE, BEST, DOCUMENT, SUMS) for damage in DAMAGES]
# Without its list of sums a checkpoint is as one of an earlier release: the files themselves are whole.
FOUND = [one for one in EVERY if one != (SUMS, "missing")]


@pytest.mark.parametrize(("name", "damage"), FOUND)
def test_damage_of_any_file_is_found_and_the_one_before_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    reporter = FolderReporter(tmp_path)
    reporter.report({}, a_checkpoint(5))
    reporter.report({}, a_checkpoint(10))
    DAMAGES[damage](tmp_path / "checkpoint-000000010" / name)
    found = reporter.latest()
    assert found is not None
    assert found.progress.step == 5
    said = warnings(tmp_path)
    assert len(said) == 1
    assert "checkpoint-000000010 cannot be read" in said[0]
    assert "continuing from the previous one, checkpoint-000000005" in said[0]
    assert said[0] in caplog.text


def test_where_all_are_damaged_it_says_so_and_removes_nothing(tmp_path: Path) -> None:
    reporter = FolderReporter(tmp_path)
    for step in (5, 10):
        reporter.report({}, a_checkpoint(step))
        flip_a_bit(tmp_path / f"checkpoint-{step:09d}" / STATE)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(TrainingError, match=r"expected a readable checkpoint .* all 2 are damaged") as caught:
        reporter.latest()
    assert "--fresh" in str(caught.value.hint)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_damaged_never_counts_as_one_of_the_two_that_are_kept(tmp_path: Path) -> None:
    reporter = FolderReporter(tmp_path)
    for step in (5, 10):
        reporter.report({}, a_checkpoint(step))
    empty(tmp_path / "checkpoint-000000010" / STATE)
    reporter.latest()
    for step in (6, 7):
        reporter.report({}, a_checkpoint(step))
    empty(tmp_path / "checkpoint-000000007" / STATE)
    found = FolderReporter(tmp_path).latest()
    assert found is not None
    assert found.progress.step == 6


def test_checkpoints_of_earlier_releases_are_read_without_sums(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", a_checkpoint(3))
    (tmp_path / "c" / SUMS).unlink()
    assert load_checkpoint(tmp_path / "c").progress.step == load_progress(tmp_path / "c").step == 3


@dataclass(frozen=True)
class Trained:
    """A run of two epochs on Ray, to be copied, damaged and gone on with for a third."""

    folder: Path
    newest: str
    before: str


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    return {}


@pytest.fixture
def run(trained: dict[str, Trained], make_plan: MakePlan, tmp_path: Path, ray_cluster: None) -> Trained:
    """Return a copy of that run."""
    if not trained:
        folder = tmp_path.parent / "trained" / "run"
        launch(make_plan(epochs=2), folder)
        newest, before = sorted((path.name for path in folder.glob("checkpoint-*")), reverse=True)
        assert {SUMS, STATE} <= {path.name for path in (folder / newest).iterdir()}
        trained["run"] = Trained(folder, newest, before)
    made = trained["run"]
    shutil.copytree(made.folder, tmp_path / "runs" / "run")
    return Trained(tmp_path / "runs" / "run", made.newest, made.before)


def warnings(folder: Path) -> list[str]:
    lines = [json.loads(line) for line in (folder / PROGRESS).read_text().splitlines()]
    return [line["text"] for line in lines if line["stage"] == "warning"]


def go_on(run: Trained, plan: Plan) -> tuple[Checkpoint, list[int], list[str]]:
    """Go on; return the last checkpoint, the epochs that were trained, and the warnings that a listener got."""
    reported: list[Mapping[str, Any]] = []
    last = launch(plan, run.folder, listen=reported.append)
    epochs = [int(facts["epoch"]) for facts in reported if facts["stage"] == "epoch"]
    return last, epochs, [facts["text"] for facts in reported if facts["stage"] == "warning"]


@pytest.mark.ray
@pytest.mark.parametrize(
    "damage",
    ["bit flipped", *(pytest.param(one, marks=pytest.mark.long) for one in ("folder gone", "note half written"))],
)
def test_a_training_on_ray_goes_on_from_the_newest_checkpoint_that_is_whole(
    run: Trained, make_plan: MakePlan, damage: str
) -> None:
    if damage == "bit flipped":
        flip_a_bit(run.folder / run.newest / STATE)
    else:
        shutil.rmtree(run.folder / run.newest)
        if damage == "note half written":
            cut_short(run.folder / NOTE)
    progress = newest_progress(run.folder)
    assert progress is not None
    last, epochs, said = go_on(run, make_plan(epochs=3))
    assert epochs == [1, 2]
    assert last.progress.finished
    assert len(last.progress.history) == 3
    assert len(said) == 1, said
    expected = f"{NOTE} cannot be read" if damage == "note half written" else f"{run.newest} cannot be read"
    assert expected in said[0]
    assert run.before in said[0]
    assert newest_checkpoint(run.folder) is not None
    assert go_on(run, make_plan(epochs=3))[1:] == ([], [])  # and it has ended


@pytest.mark.ray
def test_a_training_on_ray_whose_checkpoints_are_all_damaged_does_not_begin_again_by_itself(
    run: Trained, make_plan: MakePlan
) -> None:
    empty(run.folder / run.newest / STATE)
    (run.folder / run.before / DOCUMENT).unlink()
    before = sorted(path for path in run.folder.rglob("*") if "checkpoint" in str(path))
    with pytest.raises(TrainingError, match=f"expected a readable checkpoint .* all 2 are damaged: .*{run.newest}"):
        launch(make_plan(epochs=3), run.folder)
    assert sorted(path for path in run.folder.rglob("*") if "checkpoint" in str(path)) == before


def test_a_checkpoint_that_was_still_being_copied_is_not_taken_for_one(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint-000000005", a_checkpoint(5))
    note = {"checkpoint_results": [{"checkpoint_dir_name": "checkpoint-000000005"}]}
    (tmp_path / NOTE).write_text(json.dumps(note))
    (tmp_path / "checkpoint-000000010").mkdir()
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.progress.step == 5
    (tmp_path / NOTE).unlink()
    shutil.rmtree(tmp_path / "checkpoint-000000005")
    assert newest_checkpoint(tmp_path) is None  # killed while the first one was copied
