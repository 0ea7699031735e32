"""Tiny real trainings for the tests of diagnosis, with a place for a fault, ended as ``cytoray train`` ends them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cytoray_analysis.bundle import write_bundle
from cytoray_analysis.predictor import Predictor
from cytoray_services.datasets import Dataset, hash_dataset, task_arguments
from cytoray_services.evaluation.evaluation import evaluate
from cytoray_training.data.cache import open_cache
from cytoray_training.diagnosis.diagnose import Diagnosis, diagnose
from cytoray_training.diagnosis.ending import record_ending
from cytoray_training.diagnosis.facts import Facts
from cytoray_training.diagnosis.reading import read_facts
from cytoray_training.plan.plan import Plan
from cytoray_training.publish.out_of_fold import calibrated_out_of_fold
from cytoray_training.publish.publish import fit
from cytoray_training.recipe import parse_recipe
from cytoray_training.run.loop import train
from cytoray_training.run.reporter import FolderReporter

CPU = torch.device("cpu")

SEGMENTATION: dict[str, Any] = {
    "model": {"name": "tiny", "network": {"arguments": {"widths": [16, 32]}}},
    "data": {"channels": "grey"},
    "augmentation": {"rotation": 0.0, "elastic": 0.0},
    "training": {
        "epochs": 8,
        "crops_per_epoch": 96,
        "crop_size": 48,
        "batch_size": 8,
        "engine": "torch",
        "precision": "fp32",
        "learning_rate": 1e-2,
        "ema_decay": 0.9,
        "validate_every": 8,
    },
}
CLASSES: dict[str, Any] = {
    "model": {
        "name": "tiny",
        "task": {"name": "classification"},
        "network": {"name": "resnet", "arguments": {"widths": [8, 16, 32], "blocks": 1, "dropout": 0.0}},
    },
    "data": {"channels": "grey"},
    "augmentation": {"rotation": 0.0, "elastic": 0.0},
    "training": SEGMENTATION["training"]
    | {"crop_size": 32, "batch_size": 16, "learning_rate": 5e-3, "epochs": 14, "validate_every": 14},
}


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings with the values of `changes` in place of those of `base`."""
    return dict(base) | {
        key: merged(base[key], value) if isinstance(value, Mapping) and isinstance(base.get(key), Mapping) else value
        for key, value in changes.items()
    }


def plan_for(dataset: Dataset, home: Path, base: Mapping[str, Any] = SEGMENTATION, **changes: Any) -> Plan:
    """Make a plan; keywords are sections of the recipe, merged into the base."""
    content = merged(merged(base, changes), {"data": {"root": str(dataset.root)}})
    return Plan(parse_recipe(content), dataset, hash_dataset(dataset), task_arguments(dataset), home)


def trained(plan: Plan, folder: Path) -> Diagnosis:
    """Train, end and diagnose as ``cytoray train`` does."""
    reporter = FolderReporter(folder)
    train(plan, reporter, device=CPU)
    checkpoint = reporter.latest()
    assert checkpoint is not None
    assert checkpoint.best is not None
    cache = open_cache(plan.cache, plan.dataset, plan.dataset_hash, plan.model_input, plan.chosen_task)
    spec = plan.bundle_spec(cache.statistics, decode=fit(plan, cache, checkpoint.best))
    blank = torch.zeros((plan.examples.inputs(plan.model_input), *plan.crop)).numpy()
    with tempfile.TemporaryDirectory() as scratch:
        bundle = write_bundle(Path(scratch) / "bundle", spec, checkpoint.best, test_input=blank, card="Test.\n")
        predictor = Predictor(bundle)
        evaluation = calibrated_out_of_fold(evaluate(predictor, plan.dataset.split("val")), predictor)
        record_ending(plan, predictor, evaluation, folder)
    return diagnose(folder)


def names(diagnosis: Diagnosis) -> set[str]:
    """Return what was found."""
    return {finding.name for finding in diagnosis.findings}


def facts_after(plan: Plan, folder: Path) -> Facts:
    """Train, and return the facts that were written on the way."""
    train(plan, FolderReporter(folder), device=CPU)
    return read_facts(folder)


class FaultyNetwork(nn.Module):
    """Three convolutions; the one in the middle can be ``sound``, ``dead``, ``huge``, ``runaway`` or ``logarithm``."""

    stride = (1, 1)
    halo = (3, 3)

    def __init__(self, *, inputs: int, outputs: int, fault: str = "sound") -> None:
        super().__init__()
        self.entrance = nn.Conv2d(inputs, 8, 3, padding=1)
        self.middle = nn.Conv2d(8, 8, 3, padding=1)
        self.activation: nn.Module = nn.ReLU()
        self.head = nn.Conv2d(8, outputs, 3, padding=1)
        with torch.no_grad():
            if fault == "dead":
                nn.init.constant_(self.middle.bias, -100)  # type: ignore[arg-type] # it has a bias
            if fault == "huge":
                self.middle.weight.mul_(1e6)
                self.head.weight.mul_(1e-6)
        if fault == "runaway":
            self.activation = Runaway()
        if fault == "logarithm":
            self.activation = Logarithm()

    def bytes_per_pixel(self, item: int) -> int:
        return 32 * item

    def forward(self, image: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.activation(self.middle(torch.relu(self.entrance(image)))))
        return outputs


class Logarithm(nn.Module):
    """Forgets that there are numbers below zero."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.log(features)


class Runaway(nn.Module):
    """Multiplies its input by more with every step, after some time in which it behaves."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.Buffer(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        if self.training:
            self.steps.add_(1)
        return torch.relu(features) * 1.5 ** (self.steps - 20).clamp(min=0)
