"""The loop: an interrupted training ends where an undisturbed one ends; it stops when and as it should."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cytoray_analysis.errors import TrainingError
from cytoray_analysis.images import read_labels, write_labels
from cytoray_analysis.tasks import InstanceSegmentation
from cytoray_analysis.tasks.loss import Loss
from cytoray_services.datasets import hash_dataset, make_segmentation
from cytoray_training.diagnosis.findings import find
from cytoray_training.diagnosis.reading import read_facts
from cytoray_training.plan.plan import Plan
from cytoray_training.run.checkpoint import Checkpoint, TrainingProgress
from cytoray_training.run.loop import train
from cytoray_training.run.reporter import FolderReporter
from cytoray_training.run.stopping import STOP

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


def trained(plan: Plan, folder: Path) -> tuple[TrainingProgress, Checkpoint]:
    reporter = FolderReporter(folder)
    progress = train(plan, reporter, device=CPU)
    checkpoint = reporter.latest()
    assert checkpoint is not None
    return progress, checkpoint


def without_times(progress: TrainingProgress) -> list[dict[str, float]]:
    return [{key: value for key, value in epoch.items() if key not in TIMES} for epoch in progress.history]


class StoppingReporter(FolderReporter):
    """Is asked to stop when it has been looked at so many times: after each step, and before each validation image."""

    def __init__(self, folder: Path, looks: int) -> None:
        super().__init__(folder)
        self.looks = looks

    def stopping(self) -> bool:
        self.looks -= 1
        return self.looks < 0


@pytest.mark.slow
@pytest.mark.parametrize("looks", [1, 2, 3, 5, 6, 9])
def test_a_training_that_is_asked_to_stop_saves_and_ends_where_an_undisturbed_one_ends(
    make_plan: MakePlan, tmp_path: Path, looks: int
) -> None:
    plan = make_plan(epochs=3)
    whole, expected = trained(plan, tmp_path / "whole")
    stopped = train(plan, StoppingReporter(tmp_path / "parts", looks), device=CPU)
    assert not stopped.finished
    saved = FolderReporter(tmp_path / "parts").latest()
    assert saved is not None
    assert saved.progress.step == stopped.step
    progress, checkpoint = trained(plan, tmp_path / "parts")
    assert progress.finished
    assert without_times(progress) == without_times(whole)
    assert all(torch.equal(checkpoint.state[name], expected.state[name]) for name in expected.state)


def test_a_stop_file_in_the_folder_of_a_run_stops_it(make_plan: MakePlan, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / STOP).touch()
    progress = train(make_plan(epochs=3), FolderReporter(folder), device=CPU)
    assert not progress.finished
    assert progress.step < 3
    assert read_facts(folder).ended_by == "stop"


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "deepspeed"])
@pytest.mark.parametrize(("after", "written"), [(1, True), (2, True), (3, False), (4, True)])
def test_an_interrupted_training_ends_where_an_undisturbed_one_ends(
    make_plan: MakePlan, tmp_path: Path, engine: str, after: int, written: bool
) -> None:
    plan = make_plan(epochs=2, engine=engine, checkpoint_every=3)
    expected, undisturbed = trained(plan, tmp_path / "undisturbed")
    with pytest.raises(InterruptionError):
        train(plan, InterruptingReporter(tmp_path / "run", after=after, written=written), device=CPU)
    progress, resumed = trained(plan, tmp_path / "run")
    assert without_times(progress) == without_times(expected)
    assert resumed.state.keys() == undisturbed.state.keys()
    for name, value in undisturbed.state.items():
        torch.testing.assert_close(resumed.state[name], value, rtol=0, atol=0, msg=name)


def test_a_finished_training_is_not_trained_on(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan(epochs=1)
    progress, checkpoint = trained(plan, tmp_path)
    again, after = trained(plan, tmp_path)
    assert again == progress
    assert torch.equal(after.state["steps"], checkpoint.state["steps"])


@pytest.mark.slow
def test_training_lowers_the_loss_and_reports_every_epoch(make_plan: MakePlan, tmp_path: Path) -> None:
    progress, checkpoint = trained(make_plan(epochs=4, learning_rate=5e-3, validate_every=2), tmp_path)
    losses = [epoch["loss"] for epoch in progress.history]
    assert losses[-1] < 0.8 * losses[0]
    assert ["ap50" in epoch for epoch in progress.history] == [False, True, False, True]
    for key in ("learning_rate", "gradient_norm", "images_per_second", "wait_fraction", "elapsed"):
        assert all(epoch[key] >= 0 for epoch in progress.history)
    assert checkpoint.best is not None
    assert progress.best["ap50"] == max(epoch.get("ap50", 0) for epoch in progress.history)


@pytest.mark.slow
def test_a_gradient_that_is_no_number_stops_the_training_and_names_the_step(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    sane: Callable[..., Tensor] = vars(Loss)["__call__"]

    def loss(self: Loss, outputs: Tensor, target: Tensor, of: Tensor | None = None) -> Tensor:
        nonlocal calls
        calls += torch.is_grad_enabled()  # a step that is looked into computes its loss once more
        return sane(self, outputs, target, of) * (float("nan") if calls == 6 and torch.is_grad_enabled() else 1.0)

    monkeypatch.setattr(Loss, "__call__", loss)
    with pytest.raises(TrainingError, match=r"step 5 .*epoch 1.*nan"):
        trained(make_plan(), tmp_path)


@pytest.mark.slow
def test_a_budget_ends_the_training_with_the_schedule_at_its_end(make_plan: MakePlan, tmp_path: Path) -> None:
    progress, _ = trained(make_plan(epochs=10_000, minutes=0.03, validate_every=10_000), tmp_path)
    assert progress.finished
    assert progress.epoch < 10_000
    assert progress.history[-1]["learning_rate"] == pytest.approx(1e-5, rel=0.05)
    assert "ap50" in progress.history[-1]
    assert read_facts(tmp_path).ended_by == "minutes"


@pytest.mark.slow
def test_patience_ends_a_training_that_gains_nothing(make_plan: MakePlan, tmp_path: Path) -> None:
    progress, checkpoint = trained(make_plan(epochs=50, learning_rate=1e-12, early_stopping=2), tmp_path)
    assert progress.finished
    scores = [epoch["msa"] for epoch in progress.history]
    assert progress.epoch == scores.index(max(scores)) + 3 < 50  # of equal scores the first was the last gain
    assert checkpoint.best is not None
    assert read_facts(tmp_path).ended_by == "early stopping"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "scores", "epochs", "best"),
    [
        ("missed", [4.0, 2.0, 1.0], 3, 2),
        ("missed", [1.0, 2.0, 0.0], 2, 0),
        ("ap50", [0.4, 0.2, 0.9], 2, 0),
        ("ap50", [0.2, 0.4, 0.9], 3, 2),
        ("missed", [math.nan, 2.0, math.nan], 3, 1),
    ],
)
def test_best_and_patience_follow_the_direction_of_the_score(
    make_plan: MakePlan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    metric: str,
    scores: list[float],
    epochs: int,
    best: int,
) -> None:
    coming = iter([{metric: score} for score in scores])
    monkeypatch.setattr(InstanceSegmentation, "score", lambda *_: next(coming))
    patience = 2 if math.isnan(scores[0]) else 1
    progress, _ = trained(make_plan(epochs=3, metric=metric, early_stopping=patience), tmp_path)
    assert progress.epoch == epochs
    assert progress.best["epoch"] == best


def said(folder: Path) -> list[str]:
    lines = map(json.loads, (folder / "progress.jsonl").read_text(encoding="utf-8").splitlines())
    return [line["text"] for line in lines if line["stage"] == "warning"]


@pytest.mark.slow
def test_a_validation_without_its_score_is_said_at_the_first_and_found_at_the_end(
    make_plan: MakePlan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where objects were not labelled no share is found."""
    dataset = make_segmentation(tmp_path / "empty", images=4, size=64, seed=3)
    for item in dataset.split("val").items:
        assert item.truth is not None
        write_labels(item.truth, np.zeros_like(read_labels(item.truth)))
    plan = replace(make_plan(epochs=3, metric="recall50"), dataset=dataset, dataset_hash=hash_dataset(dataset))
    progress, checkpoint = trained(plan, tmp_path / "run")
    assert not progress.best
    assert checkpoint.best is None
    (text,) = said(tmp_path / "run")
    assert text in caplog.text
    assert "after epoch 1: the score recall50" in text
    assert "missing" in text
    found = {finding.name: finding for finding in find(read_facts(tmp_path / "run"))}["no-score"]
    assert found.severity == "error"
    assert "3 of 3" in found.evidence


@pytest.mark.slow
def test_a_score_that_is_no_number_is_said_and_its_weights_are_not_the_best(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coming = iter([{"msa": 0.2, "pq": 0.1}, {"msa": math.nan, "pq": 0.3}, {"msa": math.nan, "pq": 0.4}])
    monkeypatch.setattr(InstanceSegmentation, "score", lambda *_: next(coming))
    progress, _ = trained(make_plan(epochs=3), tmp_path)
    assert progress.best == {"msa": 0.2, "pq": 0.1, "epoch": 0.0}
    assert progress.stale == 2
    (text,) = said(tmp_path)
    assert "after epoch 2: the score msa" in text
    assert "NaN" in text
    assert text.endswith("set training.metric to a score with a value: pq")
    facts = read_facts(tmp_path)
    assert [one.score for one in facts.validations] == [0.2]
    found = {finding.name: finding for finding in find(facts)}["no-score"]
    assert (found.severity, found.evidence[:18]) == ("warning", "in 2 of 3 validati")


def test_decoding_and_steps_are_reported(make_plan: MakePlan, tmp_path: Path) -> None:
    trained(make_plan(epochs=1), tmp_path)
    lines = (tmp_path / "progress.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(f'"stage": "{stage}"' in "".join(lines) for stage in ("decoding", "training", "epoch"))
