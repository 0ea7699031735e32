"""Training across Ray nodes that share no network interface and nothing but a folder."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cytoray_analysis.errors import PlatformError, RequestError
from cytoray_services.jobs.ray.own import require_token
from cytoray_training.plan.plan import Plan
from cytoray_training.run import launch as launching
from cytoray_training.run.launch import launch
from cytoray_training.run.stopping import STOP
from ray_nodes import RayNodes, ray_nodes

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("away_from_ray_cluster")]

MakePlan = Callable[..., Plan]
ELASTIC = {"workers": 2, "min_workers": 1, "max_failures": 1}


@pytest.fixture(scope="module")
def nodes(away_from_ray_cluster: None) -> Iterator[RayNodes]:
    """A head and a worker node with one core each."""
    with ray_nodes(2, cpus=1, environment={"OMP_NUM_THREADS": "1"}) as cluster:
        require_token()  # as a process has that trained on a Ray instance of its own before
        yield cluster


@pytest.mark.long
def test_a_lost_node_costs_no_more_than_a_checkpoint_and_its_successor_is_used(
    nodes: RayNodes, make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "RESIZE_SECONDS", 5.0)
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "5")
    every, folder = 10, tmp_path / "runs" / "disturbed"
    plan = make_plan(
        epochs=1000,
        minutes=10,
        crops_per_epoch=240,
        batch_size=6,
        learning_rate=3e-3,
        checkpoint_every=every,
        validate_every=5,
        engine="deepspeed",
        zero_stage=2,
        scale=ELASTIC,
    )
    workers: list[int] = []
    steps: list[list[int]] = []

    def come_and_go(facts: Mapping[str, Any]) -> None:
        if facts["stage"] == "workers":
            workers.append(facts["workers"])
            steps.append([])
        elif facts["stage"] == "training":
            steps[-1].append(facts["step"])
        elif facts["stage"] == "epoch" and len(workers) == 1 and len(nodes.nodes) == 2:
            nodes.kill(nodes.workers[0])
        elif facts["stage"] == "epoch" and len(workers) == 2 and len(nodes.nodes) == 1:
            nodes.add()
        elif facts["stage"] == "epoch" and len(workers) == 3:
            (folder / STOP).touch()

    done = launch(plan, folder, on=nodes.address, listen=come_and_go).progress

    assert workers == [2, 1, 2]
    assert [epoch["epoch"] for epoch in done.history] == list(range(done.epoch))
    for before, after in itertools.pairwise(steps):
        # The first step that is reported after a restart is at most one checkpoint (and the step itself) behind.
        assert min(after) > max(before) - every - 1
    assert done.history[-1]["loss"] < done.history[0]["loss"]
    assert done.best["ap50"] == max(epoch.get("ap50", 0.0) for epoch in done.history)


@pytest.mark.long
def test_a_node_without_the_shared_folder_is_named_before_anything_is_trained(
    nodes: RayNodes, make_plan: MakePlan, tmp_path: Path
) -> None:
    if not nodes.network.apart:
        pytest.skip("hiding a folder from a node needs the right to make namespaces")
    (tmp_path / "runs").mkdir()
    node = nodes.add(blind_to=tmp_path / "runs")
    folder = tmp_path / "runs" / "hidden"
    with pytest.raises(PlatformError, match=f"missing on {node.ip}") as caught:
        launch(make_plan(scale={"workers": 3}, batch_size=6), folder, on=nodes.address)
    nodes.kill(node)
    assert "CYTORAY_HOME" in (caught.value.hint or "")
    assert not (folder / "progress.jsonl").exists()


@pytest.mark.long
def test_nodes_are_waited_for_and_what_is_missing_is_named(
    nodes: RayNodes, make_plan: MakePlan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan(scale={"workers": 3, "wait_minutes": 0.1}, batch_size=6)
    with pytest.raises(RequestError, match="room for 3 workers with 1 CPU each, the cluster has room for 2") as caught:
        launch(plan, tmp_path / "runs" / "large", on=nodes.address)
    assert caught.value.field == "scale.workers"
    assert "has room for 2 of 3 workers" in capsys.readouterr().err


def test_a_driver_outside_the_cluster_gets_a_hint_how_to_submit_a_job(make_plan: MakePlan, tmp_path: Path) -> None:
    with pytest.raises(RequestError) as caught:
        launch(make_plan(), tmp_path / "runs" / "outside", on="ray://head:10001")
    assert caught.value.hint == "use cytoray jobs train RECIPE --on ray://head:10001"
