"""What does not fit together is refused before a worker starts, with axis, layer and what would fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cytoray_analysis.errors import RecipeError
from cytoray_services.datasets import Dataset
from cytoray_services.datasets.synthetic.tracking import make_tracking
from cytoray_training.plan.dimensions import require_fitting
from planted_faults import CLASSES, SEGMENTATION, plan_for


@pytest.mark.slow
def test_plans_that_fit_are_let_through(fields: Dataset, crops: Dataset, tmp_path: Path) -> None:
    require_fitting(plan_for(fields, tmp_path))
    require_fitting(plan_for(crops, tmp_path, CLASSES))
    movies = make_tracking(tmp_path / "movies", movies=2, frames=8, size=96)
    model = {"task": {"name": "tracking"}, "network": {"name": "pair", "arguments": {}}}
    require_fitting(plan_for(movies, tmp_path, {"model": {"name": "tiny", **model}}))


@pytest.mark.parametrize(
    ("arguments", "field", "words"),
    [
        ({"inputs": 3}, "model.network.arguments", ["stem.0", "12 channels along axis 1", "got 4"]),
        ({"outputs": 5}, "model.network.arguments.outputs", ["axis C", "expected 3 outputs", "got 5"]),
        ({"dimensions": 3}, "model.network.arguments.dimensions", ["2 axes of YX", "one for 3"]),
    ],
)
def test_a_network_that_does_not_fit_is_refused_with_the_axis(
    fields: Dataset, tmp_path: Path, arguments: dict[str, Any], field: str, words: list[str]
) -> None:
    with pytest.raises(RecipeError) as caught:
        require_fitting(plan_for(fields, tmp_path, model={"network": {"arguments": arguments}}))
    assert caught.value.field == field
    assert caught.value.hint
    assert all(word in caught.value.message for word in words)


@pytest.mark.slow
def test_a_network_for_another_kind_of_answer_is_refused(crops: Dataset, tmp_path: Path) -> None:
    model = {"name": "tiny", "task": {"name": "classification"}, "network": {"name": "unet"}}
    with pytest.raises(RecipeError, match=r"answers per cell, .* \[16, 2\], got \[16, 2, 32, 32\]") as caught:
        require_fitting(plan_for(crops, tmp_path, CLASSES | {"model": model}))
    assert caught.value.field == "model.network.name"


def test_a_crop_with_a_side_too_many_is_refused(fields: Dataset, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="expected 2 side lengths of a crop for the axes YX") as caught:
        require_fitting(plan_for(fields, tmp_path, SEGMENTATION, training={"crop_size": [8, 48, 48]}))
    assert caught.value.field == "training.crop_size"
