"""A tiny labelled data set and a recipe that trains on it within seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from cytoray_services.datasets import Dataset, hash_dataset, make_segmentation
from cytoray_training import train as single
from cytoray_training.plan.plan import Plan
from cytoray_training.recipe import parse_recipe
from cytoray_training.run.checkpoint import Checkpoint
from cytoray_training.run.kept_checkpoints import newest_checkpoint
from cytoray_training.run.loop import train
from cytoray_training.run.reporter import FolderReporter
from cytoray_training.search import folds, learning_curve, study

MakePlan = Callable[..., Plan]


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Twelve images of 96 × 96 with touching cells; a quarter of them is the split ``val``."""
    return make_segmentation(tmp_path_factory.mktemp("cells"), images=12, size=96, seed=3)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train in this process: for tests of what is done before and after a training run."""

    def launch(plan: Plan, folder: Path, **_: object) -> Checkpoint:
        finished = newest_checkpoint(folder) if folder.is_dir() else None
        if finished is None or not finished.progress.finished:
            train(plan, FolderReporter(folder), device=torch.device("cpu"))
            finished = newest_checkpoint(folder)
        assert finished is not None
        return finished

    @contextmanager
    def cluster(*_: object, **__: object) -> Iterator[None]:
        yield

    for module in (single, study):
        monkeypatch.setattr(module, "launch", launch)
    for module in (folds, learning_curve):
        monkeypatch.setattr(module, "cluster", cluster)


@pytest.fixture
def make_plan(cells: Dataset, tmp_path: Path) -> MakePlan:
    """Return a function that makes a plan; keywords are fields of the recipe's section ``training``."""
    digest = hash_dataset(cells)

    def make(*, scale: dict[str, Any] | None = None, **training: Any) -> Plan:
        settings = {"epochs": 3, "crops_per_epoch": 16, "crop_size": 64, "batch_size": 4, "engine": "torch"}
        recipe = parse_recipe(
            {
                "model": {"name": "tiny", "network": {"arguments": {"widths": [8, 16]}}},
                "data": {"root": str(cells.root), "channels": "grey"},
                "training": settings | training,
                "scale": scale or {},
            }
        )
        return Plan(recipe, cells, digest, {}, tmp_path / "home")

    return make
