"""The loop: an interrupted training ends where an undisturbed one ends; it stops when and as it should."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cytoray_analysis.errors import TrainingError
from cytoray_analysis.tasks import InstanceSegmentation
from cytoray_training.checkpoint import Checkpoint, Journal
from cytoray_training.loop import train
from cytoray_training.plan import Plan
from cytoray_training.reporter import FolderReporter

MakePlan = Callable[..., Plan]
CPU = torch.device("cpu")
TIMES = ("elapsed", "images_per_second", "wait_fraction")


class InterruptionError(Exception):
    """Stands for the death of the process."""


class InterruptingReporter(FolderReporter):
    """Dies right after the n-th checkpoint, or right before it is written."""

    def __init__(self, folder: Path, *, after: int, written: bool) -> None:
        super().__init__(folder)
        self.after, self.written, self.count = after, written, 0

    def report(self, metrics: Mapping[str, float], checkpoint: Checkpoint | None) -> None:
        self.count += 1
        if self.count == self.after and not self.written:
            raise InterruptionError
        super().report(metrics, checkpoint)
        if self.count == self.after:
            raise InterruptionError


def trained(plan: Plan, folder: Path) -> tuple[Journal, Checkpoint]:
    reporter = FolderReporter(folder)
    journal = train(plan, reporter, device=CPU)
    checkpoint = reporter.latest()
    assert checkpoint is not None
    return journal, checkpoint


def without_times(journal: Journal) -> list[dict[str, float]]:
    return [{key: value for key, value in epoch.items() if key not in TIMES} for epoch in journal.history]


@pytest.mark.parametrize("engine", ["torch", "deepspeed"])
@pytest.mark.parametrize(("after", "written"), [(1, True), (2, True), (3, False), (4, True)])
def test_an_interrupted_training_ends_where_an_undisturbed_one_ends(
    make_plan: MakePlan, tmp_path: Path, engine: str, after: int, written: bool
) -> None:
    plan = make_plan(epochs=2, engine=engine, checkpoint_every=3)
    expected, undisturbed = trained(plan, tmp_path / "undisturbed")
    with pytest.raises(InterruptionError):
        train(plan, InterruptingReporter(tmp_path / "run", after=after, written=written), device=CPU)
    journal, resumed = trained(plan, tmp_path / "run")
    assert without_times(journal) == without_times(expected)
    assert resumed.state.keys() == undisturbed.state.keys()
    for name, value in undisturbed.state.items():
        torch.testing.assert_close(resumed.state[name], value, rtol=0, atol=0, msg=name)


def test_a_finished_training_is_not_trained_on(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan(epochs=1)
    journal, checkpoint = trained(plan, tmp_path)
    again, after = trained(plan, tmp_path)
    assert again == journal
    assert torch.equal(after.state["steps"], checkpoint.state["steps"])


def test_training_lowers_the_loss_and_reports_every_epoch(make_plan: MakePlan, tmp_path: Path) -> None:
    journal, checkpoint = trained(make_plan(epochs=4, learning_rate=5e-3, validate_every=2), tmp_path)
    losses = [epoch["loss"] for epoch in journal.history]
    assert losses[-1] < 0.8 * losses[0]
    assert ["ap50" in epoch for epoch in journal.history] == [False, True, False, True]
    for key in ("learning_rate", "gradient_norm", "images_per_second", "wait_fraction", "elapsed"):
        assert all(epoch[key] >= 0 for epoch in journal.history)
    assert checkpoint.best is not None
    assert journal.best["ap50"] == max(epoch.get("ap50", 0) for epoch in journal.history)


def test_a_gradient_that_is_no_number_stops_the_training_and_names_the_step(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    sane = InstanceSegmentation.loss

    def loss(self: InstanceSegmentation, outputs: Tensor, target: Tensor) -> Tensor:
        nonlocal calls
        calls += torch.is_grad_enabled()  # a step that is looked into computes its loss once more
        return sane(self, outputs, target) * (float("nan") if calls == 6 and torch.is_grad_enabled() else 1.0)

    monkeypatch.setattr(InstanceSegmentation, "loss", loss)
    with pytest.raises(TrainingError, match=r"step 5 .*epoch 1.*nan"):
        trained(make_plan(), tmp_path)


def test_a_budget_ends_the_training_with_the_schedule_at_its_end(make_plan: MakePlan, tmp_path: Path) -> None:
    journal, _ = trained(make_plan(epochs=10_000, minutes=0.03, validate_every=10_000), tmp_path)
    assert journal.finished
    assert journal.epoch < 10_000
    assert journal.history[-1]["learning_rate"] == pytest.approx(1e-5, rel=0.05)
    assert "ap50" in journal.history[-1]


def test_patience_ends_a_training_that_gains_nothing(make_plan: MakePlan, tmp_path: Path) -> None:
    journal, checkpoint = trained(make_plan(epochs=50, learning_rate=1e-12, early_stopping=2), tmp_path)
    assert journal.finished
    assert journal.epoch == 3
    assert checkpoint.best is not None


def test_decoding_and_steps_are_told(make_plan: MakePlan, tmp_path: Path) -> None:
    trained(make_plan(epochs=1), tmp_path)
    lines = (tmp_path / "progress.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(f'"stage": "{stage}"' in "".join(lines) for stage in ("decoding", "training", "epoch"))
