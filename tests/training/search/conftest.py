"""A stain that can be learnt within seconds, and a recipe for it; scores differ widely with the learning rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cytoray_services.datasets import Dataset
from cytoray_services.datasets.synthetic.label_free import make_label_free
from cytoray_training.recipe import Recipe, parse_recipe

MakeRecipe = Callable[..., Recipe]
GOOD, HOPELESS = 1e-2, 1e-6


@pytest.fixture(scope="session")
def stain(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Eight images of 64 × 64; about a quarter of them is the split ``val``."""
    return make_label_free(tmp_path_factory.mktemp("stain"), images=8, size=64, seed=1)


@pytest.fixture
def make_recipe(stain: Dataset) -> MakeRecipe:
    """Return a function that makes a recipe; keywords are fields of its sections ``tune`` and ``data``."""

    def make(tune: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **training: Any) -> Recipe:
        settings = {
            "epochs": 4,
            "crops_per_epoch": 32,
            "crop_size": 32,
            "batch_size": 4,
            "engine": "torch",
            "learning_rate": GOOD,
            "ema_decay": 0.0,
            "precision": "fp32",
        }
        return parse_recipe(
            {
                "model": {
                    "name": "tiny",
                    "task": {"name": "label_free"},
                    "network": {"arguments": {"widths": [8, 16]}},
                },
                "data": {"root": str(stain.root), "scaling": {"method": "zscore"}, **(data or {})},
                "training": settings | training,
                "tune": tune,
            }
        )

    return make
