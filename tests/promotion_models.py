"""Real models for the gate: trained within seconds on synthetic cells, published as every training is."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cytoray_analysis.images import read_labels, write_labels
from cytoray_services.registry import ModelVersion, Registry
from cytoray_services.settings import Settings
from cytoray_training.plan.planning import make_plan
from cytoray_training.publish.publish import publish
from cytoray_training.recipe import parse_recipe
from cytoray_training.run.loop import train
from cytoray_training.run.reporter import FolderReporter


def local(home: Path) -> Settings:
    return Settings(home=home, tracking_uri=f"sqlite:///{home / 'mlflow.db'}")


def train_model(
    registry: Registry, data: Path, *, epochs: int, seed: int = 0, start: str | None = None
) -> ModelVersion:
    """Train without Ray, publish with everything that a run records."""
    model = {"name": "cells", "network": {"arguments": {"widths": [8, 16]}}}
    settings = {
        "epochs": epochs,
        "crops_per_epoch": 64,
        "crop_size": 64,
        "batch_size": 8,
        "learning_rate": 1e-2,
        "engine": "torch",
        "precision": "fp32",
        "ema_decay": 0.9,
        "validate_every": epochs,
    }
    recipe = parse_recipe({"model": model, "data": {"root": str(data), "channels": "grey"}, "training": settings})
    plan = make_plan(recipe, registry.settings)
    folder = registry.settings.home / "runs" / f"{data.name}-{epochs}"
    reporter = FolderReporter(folder)
    train(plan, reporter, device=torch.device("cpu"))
    checkpoint = reporter.latest()
    assert checkpoint is not None
    with registry.start_run("cells", folder.name) as run:
        version = publish(plan, checkpoint, folder, run, registry).version
    assert version is not None
    return version


@dataclass(frozen=True)
class Zoo:
    """A registry with a good model and three that must not pass, and the data that judge them."""

    home: Path
    training: Path
    frozen: Path
    good: str
    fewer_epochs: str
    shuffled_labels: str
    trained_on_frozen: str


def shuffle_labels(source: Path, target: Path) -> None:
    """Copy a data set, each image with the mask of another."""
    shutil.copytree(source, target)
    masks = sorted((target / "masks").iterdir())
    labels = [read_labels(mask) for mask in masks]
    order = np.roll(np.arange(len(masks)), 1)
    for mask, other in zip(masks, order, strict=True):
        write_labels(mask, labels[other])
