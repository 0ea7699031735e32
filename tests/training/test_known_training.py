"""Training and its statistics do not depend on labels that the manifest calls unknown."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from cytoray_analysis.predictor import Predictor
from cytoray_services.datasets import Dataset, hash_dataset, open_dataset
from cytoray_services.evaluation.evaluation import evaluate
from cytoray_training.data.source import open_source
from cytoray_training.diagnosis.disputes import disputed_objects
from cytoray_training.diagnosis.splits import object_features
from cytoray_training.plan.plan import Plan
from cytoray_training.publish.publish import fitted, usual_diameter
from cytoray_training.recipe import parse_recipe
from cytoray_training.run.checkpoint import Checkpoint
from cytoray_training.run.kept_checkpoints import newest_checkpoint
from cytoray_training.run.loop import train
from cytoray_training.run.reporter import FolderReporter
from known_regions import make_known


def trained(dataset: Dataset, folder: Path) -> tuple[Plan, Checkpoint]:
    recipe = parse_recipe(
        {
            "model": {"name": "tiny", "network": {"arguments": {"widths": [8, 16]}}},
            "data": {"root": str(dataset.root), "channels": "grey"},
            "training": {"epochs": 2, "crops_per_epoch": 16, "crop_size": 64, "batch_size": 4, "engine": "torch"},
        }
    )
    plan = Plan(recipe, dataset, hash_dataset(dataset), {}, folder / "home")
    train(plan, FolderReporter(folder / "run"), device=torch.device("cpu"))
    checkpoint = newest_checkpoint(folder / "run")
    assert checkpoint is not None
    return plan, checkpoint


def require_same(one: Checkpoint, other: Checkpoint) -> None:
    assert one.best is not None
    assert other.best is not None
    assert one.best.keys() == other.best.keys()
    assert all(torch.equal(one.best[name], other.best[name]) for name in one.best)
    assert one.progress.best == other.progress.best


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Plan, Checkpoint]]:
    """Two training runs whose data differ in the unknown labels only."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("pair")
    datasets = [open_dataset(make_known(folder / str(seed), scrambled=seed), drawing_test=False) for seed in (1, 2)]
    return [trained(dataset, folder / f"runs-{number}") for number, dataset in enumerate(datasets)]


@pytest.mark.slow
def test_unknown_labels_have_no_influence_on_weights_and_metrics(pair: list[tuple[Plan, Checkpoint]]) -> None:
    (one_plan, one), (other_plan, other) = pair
    assert one_plan.dataset_hash != other_plan.dataset_hash
    require_same(one, other)
    assert len(one.progress.best) > 1


@pytest.mark.slow
def test_unknown_labels_have_no_influence_on_fitting_evaluation_and_diagnosis(
    pair: list[tuple[Plan, Checkpoint]],
) -> None:
    found: list[dict[str, Any]] = []
    for plan, checkpoint in pair:
        source = open_source(plan)
        assert checkpoint.best is not None
        model = fitted(plan, source, checkpoint.best, {})
        evaluation = evaluate(Predictor(model, device="cpu", precision="fp32"), plan.dataset.split("val"))
        found.append(
            {
                "decode": model.spec.decode,
                "diameter": usual_diameter(plan, source),
                "metrics": evaluation.metrics,
                "intervals": evaluation.intervals,
                "disputes": [dataclasses.replace(one, file="") for one in disputed_objects(evaluation.items, "val")],
                "features": [object_features(item.labelled.truth) for item in evaluation.items],
            }
        )
    assert found[0] == found[1]
    assert found[0]["metrics"]


@pytest.mark.slow
def test_what_is_known_trains_as_much_as_it_did_without_a_mask(tmp_path: Path) -> None:
    """With everything known, the mask changes nothing."""
    runs = []
    for name, known in (("with", True), ("without", False)):
        folder = make_known(tmp_path / name, known=known)
        if known:
            for path in (folder / "known").iterdir():
                tifffile.imwrite(path, np.ones((96, 96), np.uint8))
        runs.append(trained(open_dataset(folder, drawing_test=False), tmp_path / f"run-{name}"))
    (_, one), (_, other) = runs
    require_same(one, other)
