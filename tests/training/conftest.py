"""A tiny labelled data set and a recipe that trains on it within seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cytoray_services.datasets import Dataset, hash_dataset, make_segmentation
from cytoray_training.plan.plan import Plan
from cytoray_training.recipe import parse_recipe

MakePlan = Callable[..., Plan]


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Twelve images of 96 × 96 with touching cells; a quarter of them is the split ``val``."""
    return make_segmentation(tmp_path_factory.mktemp("cells"), images=12, size=96, seed=3)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


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
