"""A training that would learn or measure nothing is refused before it starts, and the data check says the same."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml

from cytoray_analysis.errors import DatasetError, RecipeError
from cytoray_analysis.tasks import Task, get_task
from cytoray_services.commands.root import main
from cytoray_services.datasets import Dataset, open_dataset
from cytoray_services.settings import load_settings
from cytoray_training.plan.code_version import CHANGED
from cytoray_training.plan.data_check import check_data, find_nothing_to_score
from cytoray_training.plan.planning import make_plan
from cytoray_training.recipe import Recipe, parse_recipe


@pytest.fixture
def folder(cells: Dataset, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cells.root, tmp_path / "set"))


def recipe_for(folder: Path, **model: Any) -> dict[str, Any]:
    return {
        "model": {"name": "tiny", "network": {"arguments": {"widths": [8, 16]}}, **model},
        "data": {"root": str(folder), "channels": "grey"},
        "training": {"epochs": 1, "crops_per_epoch": 16, "crop_size": 64, "batch_size": 4},
    }


def change_masks(folder: Path, split: str, change: Any) -> None:
    for item in open_dataset(folder).split(split).items:
        assert item.truth is not None
        tifffile.imwrite(item.truth, change(tifffile.imread(item.truth)))


def refused(recipe: Recipe) -> str:
    with pytest.raises(DatasetError) as caught:
        make_plan(recipe, load_settings())
    return caught.value.message


@pytest.mark.slow
@pytest.mark.usefixtures("cytoray_home")
def test_a_validation_split_without_an_object_is_refused(folder: Path) -> None:
    recipe = parse_recipe(recipe_for(folder))
    assert make_plan(recipe, load_settings()).metric == "msa"
    change_masks(folder, "val", np.zeros_like)
    assert "msa has nothing to count in split 'val'" in refused(recipe)
    (error,) = (one for one in check_data(recipe).findings if one.severity == "error")
    assert error.code == "nothing-to-score"


@pytest.mark.slow
@pytest.mark.usefixtures("cytoray_home")
def test_masks_of_0_and_255_are_refused_for_classes_unless_they_are_mapped(folder: Path) -> None:
    for split in ("train", "val"):
        change_masks(folder, split, lambda mask: ((mask > 0) * 255).astype(np.uint8))
    task = {"name": "semantic_segmentation", "arguments": {"classes": ["background", "nucleus"]}}
    assert "class 'nucleus' has no pixel in any mask" in refused(parse_recipe(recipe_for(folder, task=task)))
    task["arguments"] |= {"values": {0: "background", 255: "nucleus"}}  # type: ignore[operator]
    plan = make_plan(parse_recipe(recipe_for(folder, task=task)), load_settings())
    assert plan.chosen_task.arguments["values"] == {0: "background", 255: "nucleus"}


def test_a_metric_that_the_task_does_not_have_is_refused(folder: Path) -> None:
    content = recipe_for(folder)
    content["training"]["metric"] = "psnr"
    with pytest.raises(RecipeError, match="expected one of the task's metrics"):
        check_data(parse_recipe(content))


def perfect(name: str, **arguments: Any) -> tuple[Task, dict[str, Any]]:
    return get_task(name, arguments), arguments


def test_what_a_perfect_answer_could_not_show_is_nothing_to_score(folder: Path) -> None:
    dataset = open_dataset(folder)
    task, arguments = perfect("segmentation")
    assert find_nothing_to_score(dataset, task, arguments, "recall50") is None
    change_masks(folder, "val", np.zeros_like)
    found = find_nothing_to_score(dataset, task, arguments, "recall50")
    assert found is not None
    assert "recall50" in found.problem


@pytest.mark.slow
@pytest.mark.skipif(not entry_points(group="cytoray.checks"), reason="installed before this entry point was there")
def test_data_check_with_a_recipe_says_what_training_says(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = recipe_for(tmp_path / "elsewhere")
    content["data"]["axes"] = "ZYX"
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(SystemExit) as stopped:
        main(["data", "check", str(folder), "--recipe", str(path), "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert stopped.value.code == 2
    assert {one["code"] for one in answer["findings"] if one["severity"] == "error"} == {"wrong-axes"}
    content["data"]["root"] = str(folder)
    assert answer["findings"][0]["problem"] in refused(parse_recipe(content))


@pytest.mark.slow
def test_movies_without_a_division_have_a_note_with_the_scores_they_have(shared_data: Path) -> None:
    movies = open_dataset(shared_data / "tracking" / "yeast_phase").as_split("val")
    task, arguments = perfect("tracking")
    found = find_nothing_to_score(movies, task, arguments, "division_f1")
    assert found is not None
    assert "training.metric: tra" in found.remedy
    assert find_nothing_to_score(movies, task, arguments, "tra") is None


@pytest.mark.slow
def test_a_later_start_with_the_same_files_and_code_decodes_none_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYTORAY_HOME", str(tmp_path / "home"))
    recipe = parse_recipe(recipe_for(folder))

    def decoded(code: str) -> bool:
        """Whether a check looks at the files: what it finds is then kept under a new name."""
        kept = set((tmp_path / "home" / "cache" / "checks").glob("*"))
        checked = check_data(recipe, code=code)
        assert not any(finding.severity == "error" for finding in checked.findings)
        return set((tmp_path / "home" / "cache" / "checks").glob("*")) != kept

    assert decoded("one")
    assert not decoded("one")
    assert decoded("two")
    change_masks(folder, "val", lambda labels: np.where(labels == labels.max(), 0, labels))
    assert decoded("two")
    change_masks(folder, "train", np.zeros_like)
    change_masks(folder, "val", np.zeros_like)
    for _ in range(2):  # what is wrong is looked at each time
        assert any(finding.severity == "error" for finding in check_data(recipe, code="two").findings)


def test_of_changed_code_nothing_is_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYTORAY_HOME", str(tmp_path / "home"))
    check_data(parse_recipe(recipe_for(folder)), code=f"0123{CHANGED}")
    assert not (tmp_path / "home" / "cache" / "checks").exists()
