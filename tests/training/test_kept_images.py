"""Validation images are decoded once, however often they are scored, as far as they fit into memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cytoray_analysis.networks import build_network
from cytoray_services.datasets import Dataset
from cytoray_training.data.kept_images import KeptImages
from cytoray_training.data.source import open_source
from cytoray_training.plan.plan import Plan
from cytoray_training.run.validation import validate


def test_images_are_read_once_as_long_as_they_fit(cells: Dataset) -> None:
    first, second = cells.split("val").images[:2]
    size = KeptImages({}).parts(cells, first)[0].truth.nbytes
    images = KeptImages({}, budget=int(1.5 * size))
    kept = images.parts(cells, first)
    assert images.parts(cells, first) is kept
    assert images.parts(cells, second) is not images.parts(cells, second)
    assert (images.parts(cells, second)[0].truth == KeptImages({}).parts(cells, second)[0].truth).all()


def test_the_next_validation_needs_no_file_of_a_truth(make_plan: Callable[..., Plan], tmp_path: Path) -> None:
    plan = make_plan()
    source = open_source(plan)
    torch.manual_seed(0)
    weights = build_network(plan.network.name, plan.network.arguments).state_dict()
    images = KeptImages(plan.chosen_task.arguments)
    before = validate(plan, source, weights, "cpu", images=images)
    hidden = [(item.truth, tmp_path / item.truth.name) for item in plan.dataset.split("val").items if item.truth]
    for path, elsewhere in hidden:
        path.rename(elsewhere)
    try:
        assert validate(plan, source, weights, "cpu", images=images) == before
        with pytest.raises(Exception, match=hidden[0][0].name):
            validate(plan, source, weights, "cpu")
    finally:
        for path, elsewhere in hidden:
            elsewhere.rename(path)
