"""What is measured at the end of a training run: decode parameters, and the usual width of objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cytoray_analysis.networks import build_network
from cytoray_analysis.object_width import usual_width
from cytoray_services.datasets import Dataset, hash_dataset, read_labelled
from cytoray_training.data.source import open_source
from cytoray_training.plan.plan import Plan, data_source
from cytoray_training.publish.publish import fit, usual_diameter
from cytoray_training.recipe import parse_recipe


def plan_of(cells: Dataset, home: Path, **data: Any) -> Plan:
    recipe = parse_recipe(
        {
            "model": {"name": "tiny", "network": {"arguments": {"widths": [8, 16]}}},
            "data": {"root": str(cells.root), **data},
            "training": {"crop_size": 64, "engine": "torch", "precision": "fp32"},
        }
    )
    dataset = data_source(recipe).open()
    return Plan(recipe, dataset, hash_dataset(dataset), {}, home)


def test_the_usual_width_is_that_of_the_objects_as_the_network_sees_them(cells: Dataset, tmp_path: Path) -> None:
    training = cells.split("train")
    widths = sorted(usual_width(read_labelled(training, items, {}).truth) or 0.0 for items in training.images)
    plain = plan_of(cells, tmp_path / "a")
    found = usual_diameter(plain, open_source(plain))
    assert found is not None
    assert widths[0] <= found <= widths[-1]
    coarse = plan_of(cells, tmp_path / "b", pixel_size=1.0, select={"pixel_size": 0.5})
    assert usual_diameter(coarse, open_source(coarse)) == pytest.approx(found / 2, rel=0.1)


def test_decoding_is_fitted_where_images_are_resampled_for_the_network(cells: Dataset, tmp_path: Path) -> None:
    """A fault of the past: outputs at the network's pixels met truths at those of the images."""
    plan = plan_of(cells, tmp_path, pixel_size=1.0, select={"pixel_size": 0.5})
    weights = build_network(plan.network.name, plan.network.arguments).state_dict()
    fitted = fit(plan, open_source(plan), weights)
    assert fitted.keys() == plan.task.output.defaults().keys()
