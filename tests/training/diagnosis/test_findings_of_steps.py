"""Faults that show while a network learns: each is planted in a real training and named, and a sound one is not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cytoray_analysis.errors import TrainingError
from cytoray_analysis.networks import NETWORKS
from cytoray_services.datasets import Dataset
from cytoray_training.data.cache import CachedPixels
from cytoray_training.diagnosis.diagnose import diagnose
from cytoray_training.diagnosis.facts import Facts
from cytoray_training.diagnosis.findings import find
from cytoray_training.run.loop import train
from cytoray_training.run.reporter import FolderReporter
from planted_faults import CPU, SEGMENTATION, FaultyNetwork, facts_after, plan_for

BARE = SEGMENTATION | {"model": {}}
SHORT = {"epochs": 4, "crops_per_epoch": 64, "crop_size": 32, "validate_every": 4}


@pytest.fixture(autouse=True)
def _faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "faulty", FaultyNetwork)


def facts(fields: Dataset, home: Path, fault: str | None = None, **training: Any) -> Facts:
    network = {"name": "unet", "arguments": {"widths": [8, 16]}}
    if fault is not None:
        network = {"name": "faulty", "arguments": {"fault": fault}}
    changes = {"model": {"name": "tiny", "network": network}, "training": SHORT | training}
    return facts_after(plan_for(fields, home, BARE, **changes), home / "run")


def named(facts: Facts) -> dict[str, str]:
    return {finding.name: f"{finding.evidence} {finding.remedy}" for finding in find(facts)}


@pytest.mark.slow
@pytest.mark.parametrize("fault", [None, "sound"])
def test_a_sound_training_raises_nothing(fields: Dataset, tmp_path: Path, fault: str | None) -> None:
    assert named(facts(fields, tmp_path, fault)) == {}


@pytest.mark.slow
def test_a_learning_rate_far_too_high_is_named_with_a_lower_one(fields: Dataset, tmp_path: Path) -> None:
    found = named(facts(fields, tmp_path, learning_rate=1.0))
    assert "training.learning_rate: 0.1 (now 1)" in found["learning-rate-too-high"]


@pytest.mark.slow
def test_a_learning_rate_far_too_low_is_named_with_a_higher_one(fields: Dataset, tmp_path: Path) -> None:
    found = named(facts(fields, tmp_path, learning_rate=1e-6))
    assert "learning-rate-too-high" not in found
    assert "(now 1e-06)" in found["learning-rate-too-low"]


@pytest.mark.slow
def test_dead_layers_are_named(fields: Dataset, tmp_path: Path) -> None:
    found = named(facts(fields, tmp_path, "dead"))
    assert "activation (100%)" in found["dead-layers"]
    assert "exploding-layers" not in found


@pytest.mark.slow
def test_exploding_layers_are_named(fields: Dataset, tmp_path: Path) -> None:
    found = named(facts(fields, tmp_path, "huge"))
    assert "from middle on" in found["exploding-layers"]


@pytest.mark.slow
def test_a_training_that_runs_away_is_named(fields: Dataset, tmp_path: Path) -> None:
    assert "diverging" in named(facts(fields, tmp_path, "runaway"))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "deepspeed"])
def test_what_is_no_number_is_traced_to_its_step_and_layer(fields: Dataset, tmp_path: Path, engine: str) -> None:
    with pytest.raises(TrainingError, match=r"step 0 .*the first such value is in activation"):
        facts(fields, tmp_path, "logarithm", engine=engine)
    diagnosis = diagnose(tmp_path / "run")
    (finding,) = (finding for finding in diagnosis.findings if finding.name == "not-finite")
    assert finding.severity == "error"
    assert finding.evidence.startswith("step 0 (epoch 1)")
    assert "the layer activation was the first" in finding.evidence
    assert diagnosis.report.is_file()


@pytest.mark.slow
def test_a_network_that_waits_is_named_with_the_stage(
    fields: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = CachedPixels.read

    def slow(self: CachedPixels, region: tuple[slice, ...]) -> NDArray[np.float32]:
        time.sleep(0.03)  # a disk at the other end of a network
        return read(self, region)

    monkeypatch.setattr(CachedPixels, "read", slow)
    found = named(facts(fields, tmp_path))
    assert "slowest: read" in found["waiting-for-data"]


@pytest.mark.slow
def test_steps_of_an_interrupted_training_are_reported_once(fields: Dataset, tmp_path: Path) -> None:
    plan = plan_for(fields, tmp_path, training=SHORT | {"epochs": 2})
    whole = facts_after(plan, tmp_path / "run")
    train(plan, FolderReporter(tmp_path / "run"), device=CPU)  # finished: goes on with nothing
    progress = tmp_path / "run" / "progress.jsonl"
    steps = [line for line in progress.read_text(encoding="utf-8").splitlines() if '"steps"' in line]
    with progress.open("a", encoding="utf-8") as file:
        file.write(steps[-1] + "\n")
    from cytoray_training.diagnosis.reading import read_facts

    assert read_facts(tmp_path / "run").steps == whole.steps
    assert whole.ended_by == "epochs"
    assert whole.steps.step == tuple(range(16))
