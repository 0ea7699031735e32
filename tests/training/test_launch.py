"""Training on Ray: two workers with DeepSpeed, a worker that is killed, an error that a worker raises."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from cytoray_analysis.errors import RecipeError, RequestError
from cytoray_training.plan.plan import Plan
from cytoray_training.run.launch import launch
from cytoray_training.run.loop import train
from cytoray_training.run.reporter import FolderReporter

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

MakePlan = Callable[..., Plan]
TWO = {"workers": 2}


def workers_below_this_process() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if any("RayTrainWorker" in word for word in process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.long
def test_killed_workers_are_replaced_as_long_as_there_is_a_checkpoint_between_and_little_is_trained_twice(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    every = 5
    scale = TWO | {"max_failures": 1}
    settings: dict[str, Any] = {"epochs": 6, "crops_per_epoch": 80, "engine": "deepspeed", "zero_stage": 1}
    plan = make_plan(checkpoint_every=every, scale=scale, **settings)
    steps: list[int] = []
    killed_after: list[int] = []

    def kill_one(facts: Mapping[str, Any]) -> None:
        if facts["stage"] == "training":
            steps.append(int(facts["step"]))
            if facts["epoch"] >= 1 + 2 * len(killed_after) and len(killed_after) < 2:
                victim = max(workers_below_this_process(), key=lambda process: process.pid)
                os.kill(victim.pid, signal.SIGKILL)
                killed_after.append(len(steps))

    disturbed = launch(plan, tmp_path / "runs" / "disturbed", listen=kill_one)
    undisturbed = launch(plan, tmp_path / "runs" / "undisturbed")

    assert len(killed_after) == 2, "the training was over before a worker could be killed"
    assert len(disturbed.progress.history) == len(undisturbed.progress.history) == 6
    assert disturbed.progress.step == undisturbed.progress.step == plan.recipe.training.total_steps
    for killed in killed_after:
        # The first step that is reported after the restart is at most one checkpoint (and the step itself) behind.
        assert min(steps[killed:]) > max(steps[:killed]) - every - 1
    for name, value in undisturbed.state.items():
        torch.testing.assert_close(disturbed.state[name], value, msg=name)
    assert disturbed.progress.best == pytest.approx(undisturbed.progress.best)


def test_two_workers_with_deepspeed_learn_as_well_as_one_with_torch(make_plan: MakePlan, tmp_path: Path) -> None:
    settings = {"epochs": 3, "crops_per_epoch": 64, "learning_rate": 3e-3}
    together = launch(
        make_plan(engine="deepspeed", zero_stage=2, scale=TWO, **settings), tmp_path / "runs" / "together"
    )
    alone = train(make_plan(**settings), FolderReporter(tmp_path / "alone"), device=torch.device("cpu"))
    losses = [[epoch["loss"] for epoch in progress.history] for progress in (together.progress, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=0.2)
    assert together.best is not None


def test_what_a_worker_raises_reaches_the_caller_as_it_is(make_plan: MakePlan, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        launch(make_plan(epochs=1, metric="fame"), tmp_path / "runs" / "wrong")
    assert caught.value.field == "training.metric"
    assert "fame" in caught.value.message


def test_more_than_the_cluster_has_is_refused_at_once(make_plan: MakePlan, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="GPU"):
        launch(make_plan(scale={"gpus_per_worker": 1}), tmp_path / "runs" / "large")
