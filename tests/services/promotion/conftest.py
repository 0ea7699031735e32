"""A registry with a good model and three that must not pass, trained once for all tests of the gate."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from cytoray_services.datasets import make_segmentation
from cytoray_services.registry import Registry
from promotion_models import Zoo, local, shuffle_labels, train_model


@pytest.fixture(scope="session")
def zoo(registry_without_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """Train each of the models once for all tests."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("zoo")
    home = Path(shutil.copytree(registry_without_models, folder / "home"))
    registry = Registry.open(local(home))
    training, frozen, shuffled = folder / "training", folder / "frozen", folder / "shuffled"
    make_segmentation(training, images=24, size=96, seed=3)
    make_segmentation(frozen, images=16, size=96, seed=4)
    shuffle_labels(training, shuffled)
    return Zoo(
        home,
        training,
        frozen,
        good=train_model(registry, training, epochs=10).version,
        fewer_epochs=train_model(registry, training, epochs=2).version,
        shuffled_labels=train_model(registry, shuffled, epochs=10).version,
        trained_on_frozen=train_model(registry, frozen, epochs=10).version,
    )


@pytest.fixture
def registry(zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Give the test the models in a registry of its own; nothing was promoted in it."""
    home = tmp_path / "home"
    shutil.copytree(zoo.home, home, ignore=shutil.ignore_patterns("runs"))
    monkeypatch.setenv("CYTORAY_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Registry.open(local(home))
