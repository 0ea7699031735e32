"""What is published of a training that was killed before it could write down that it had been."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cytoray_services.registry import Registry
from cytoray_services.settings import load_settings
from cytoray_training.plan.plan import Plan
from cytoray_training.publish.publish import publish
from cytoray_training.run.loop import train
from cytoray_training.run.reporter import FolderReporter

MakePlan = Callable[..., Plan]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_publishing_again_gives_the_same_bytes_and_the_same_version_unless_the_bundle_is_damaged(
    registry_home: Path, make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, folder = make_plan(epochs=1), tmp_path / "run"
    reporter = FolderReporter(folder)
    train(plan, reporter, device=torch.device("cpu"))
    checkpoint = reporter.latest()
    assert checkpoint is not None
    registry = Registry.open(load_settings())
    run = registry.start_run("tiny", "first")
    first = publish(plan, checkpoint, folder, run, registry)
    written = contents(first.bundle.folder)
    assert first.bundle.spec.provenance["trained"] == checkpoint.progress.ended != ""
    assert first.version is not None

    time.sleep(1.1)  # the bundle says to the second when it was trained
    shutil.rmtree(first.bundle.folder)
    again = publish(plan, checkpoint, folder, run, registry)
    assert contents(again.bundle.folder) == written
    assert again.version == first.version

    # As on a node with another release, or with a processor that fits the decoding otherwise.
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CYTORAY_REVISION", "another")
    elsewhere = publish(plan, checkpoint, folder, run, registry)
    assert contents(elsewhere.bundle.folder) == written
    assert [version.version for version in registry.versions("tiny")] == ["1"]

    weights = first.bundle.folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    other = registry.start_run("tiny", "second")
    anew = publish(plan, checkpoint, folder, other, registry)
    assert anew.bundle.self_test() < 1e-3
    assert anew.bundle.spec.provenance["run"] == other.run_id
    assert [version.version for version in registry.versions("tiny")] == ["2", "1"]
