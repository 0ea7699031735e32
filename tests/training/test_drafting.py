"""A recipe written from a data set trains on it as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cytoray_analysis.errors import RecipeError
from cytoray_services.commands.root import main
from cytoray_services.datasets import Dataset, make_segmentation
from cytoray_services.datasets.synthetic.classification import make_classification
from cytoray_services.datasets.synthetic.label_free import make_label_free
from cytoray_services.datasets.synthetic.tracking import make_tracking
from cytoray_services.datasets.synthetic.volumes import make_volumes
from cytoray_services.settings import Settings, load_settings
from cytoray_training.plan.drafting import draft_recipe
from cytoray_training.plan.planning import make_plan
from cytoray_training.recipe import parse_recipe
from serving_samples import write_small_bundle

MAKERS: dict[str, tuple[Callable[..., Dataset], dict[str, Any]]] = {
    "segmentation": (make_segmentation, {"images": 6, "size": 64}),
    "volumes": (make_volumes, {"images": 4, "size": 32}),
    "classification": (make_classification, {"images": 32, "size": 96}),
    "label_free": (make_label_free, {"images": 6, "size": 64}),
    "tracking": (make_tracking, {"movies": 4, "size": 64}),
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({"CYTORAY_HOME": str(tmp_path / "home")})


@pytest.mark.slow
@pytest.mark.parametrize("kind", MAKERS)
def test_the_recipe_of_every_kind_of_data_can_be_planned(kind: str, settings: Settings, tmp_path: Path) -> None:
    make, options = MAKERS[kind]
    make(tmp_path / "My Cells 2", **options)
    recipe = parse_recipe(draft_recipe(tmp_path / "My Cells 2", settings))
    assert recipe.model.name == "my-cells-2"
    assert recipe.model.task.name == {"volumes": "segmentation"}.get(kind, kind)
    assert recipe.data.axes == ("ZYX" if kind == "volumes" else "YX")
    make_plan(recipe, settings)


def test_with_a_model_to_start_from_task_network_and_input_are_those_of_the_model(
    cells: Dataset, settings: Settings, tmp_path: Path
) -> None:
    bundle = write_small_bundle(tmp_path / "nuclei")
    recipe = parse_recipe(draft_recipe(cells.root, settings, start=str(bundle)))
    assert recipe.model.start is not None
    assert recipe.model.start.source == str(bundle)
    assert recipe.model.network.arguments == {"widths": [8, 16]}
    plan = make_plan(recipe, settings)
    assert plan.network.arguments["finish"] == "cells"  # as the bundle was trained
    assert plan.start is not None
    assert plan.start.decode == {"votes": 6.0, "smallest": 2.0}


def test_a_model_for_another_question_is_no_start(settings: Settings, tmp_path: Path) -> None:
    make_classification(tmp_path / "kinds", images=6, size=96)
    with pytest.raises(RecipeError, match="expected data for the task segmentation"):
        draft_recipe(tmp_path / "kinds", settings, start=str(write_small_bundle(tmp_path / "nuclei")))


def run(*words: str | Path) -> Any:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return stopped.value.code


def test_the_command_writes_a_new_file_only(cells: Dataset, cytoray_home: Path, tmp_path: Path) -> None:
    out = tmp_path / "cells.yaml"
    assert run("recipe", "init", cells.root, "--out", out) == 0
    parse_recipe(yaml.safe_load(out.read_text()))
    before = out.read_bytes()
    assert run("recipe", "init", cells.root, "--out", out) == 2
    assert out.read_bytes() == before


def test_training_on_a_folder_names_the_command_that_writes_a_recipe(
    cells: Dataset, cytoray_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", cells.root) == 2
    assert f"cytoray recipe init {cells.root}" in capsys.readouterr().err
