"""A training from recipe to registry, and what is refused before it starts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.errors import BundleError, DatasetError, PlatformError, RecipeError
from cytoray_analysis.images import read_image
from cytoray_analysis.predictor import Predictor
from cytoray_services.commands.root import main
from cytoray_services.datasets import Dataset
from cytoray_services.registry import KEPT, Registry
from cytoray_services.settings import load_settings
from cytoray_training import train as training
from cytoray_training.plan.planning import make_plan
from cytoray_training.recipe import Recipe, parse_recipe


def recipe_for(cells: Dataset, **changes: Any) -> Recipe:
    content = {
        "model": {"name": "tiny", "network": {"arguments": {"widths": [8, 16]}}},
        "data": {"root": str(cells.root), "channels": "grey"},
        "training": {"epochs": 2, "crops_per_epoch": 32, "crop_size": 64, "batch_size": 4, "learning_rate": 5e-3},
    }
    return parse_recipe(content | changes)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_training_ends_in_the_registry_and_goes_on_after_a_failure(
    cytoray_home: Path, cells: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, settings = recipe_for(cells), load_settings()

    def unreachable(*arguments: object) -> None:
        raise PlatformError("the registry does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(training, "publish", unreachable)
        with pytest.raises(PlatformError, match="does not answer"):
            training.run_training(recipe, settings)
    (progress,) = (cytoray_home / "runs").glob("*/progress.jsonl")
    trained_once = progress.read_text(encoding="utf-8")

    outcome = training.run_training(recipe, settings)

    assert progress.read_text(encoding="utf-8") == trained_once  # only what was missing was done
    known = {"model", "version", "run_id", "bundle", "metrics", "intervals", "metrics_are", "seconds"}
    assert set(outcome) == known
    version = Registry.open(settings).resolve("tiny@candidate")
    assert (version.version, version.run_id) == (outcome["version"], outcome["run_id"])
    bundle = Bundle.load(outcome["bundle"])
    assert bundle.digest == version.digest
    assert bundle.self_test() < 1e-3
    assert bundle.spec.decode
    assert bundle.spec.provenance["data"]
    answer = Predictor(bundle).predict(read_image(cells.split("val").items[0].image))
    assert answer.answer.shape == (96, 96)
    assert outcome["metrics"]["ap50"] >= 0


@pytest.mark.slow
@pytest.mark.usefixtures("without_ray")
def test_a_training_whose_registry_does_not_answer_is_registered_later(
    cytoray_home: Path, cells: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # the discard service, which no machine runs
        outcome = training.run_training(recipe_for(cells), load_settings())
    assert (outcome["version"], outcome["run_id"]) == (None, "")

    with pytest.raises(SystemExit) as ended:
        main(["models", "import", outcome["bundle"], "--json"])
    assert ended.value.code == 0

    answer = json.loads(capsys.readouterr().out)
    registry = Registry.open(load_settings())
    version = registry.resolve("tiny@candidate")
    assert (answer["model"], answer["version"]) == (version.name, version.version)
    assert version.digest == Bundle.load(outcome["bundle"]).digest
    assert version.metrics == pytest.approx(outcome["metrics"])
    assert version.run_id is not None
    with registry._connection.client() as client:
        run = client.get_run(version.run_id)
        files = {file.path for file in client.list_artifacts(version.run_id)}
    assert (run.info.status, run.data.params["training.epochs"]) == ("FINISHED", "2")
    assert {"recipe.yaml", "README.md", "pictures", "diagnosis"} <= files
    assert not (Path(outcome["bundle"]).parent / KEPT).exists()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"training": {"metric": "fame"}}, "training.metric"),
        ({"training": {"crop_size": 65}}, "training.crop_size"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_before_anything_starts(
    tmp_path: Path, cells: Dataset, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        make_plan(recipe_for(cells, **changes), load_settings({"CYTORAY_HOME": str(tmp_path)}))
    assert caught.value.field == field


def test_a_network_that_cannot_be_built_is_refused(tmp_path: Path, cells: Dataset) -> None:
    model = {"name": "tiny", "network": {"name": "transformer"}}
    with pytest.raises(BundleError, match="transformer"):
        make_plan(recipe_for(cells, model=model), load_settings({"CYTORAY_HOME": str(tmp_path)}))


def test_data_that_would_ruin_the_training_are_refused_with_file_and_remedy(tmp_path: Path, cells: Dataset) -> None:
    root = tmp_path / "spoilt"
    shutil.copytree(cells.root, root)
    (victim := next((root / "images").iterdir())).write_bytes(b"no image")
    recipe = recipe_for(cells, data={"root": str(root), "channels": "grey"})
    with pytest.raises(DatasetError) as caught:
        make_plan(recipe, load_settings({"CYTORAY_HOME": str(tmp_path)}))
    assert victim.name in caught.value.message
    assert caught.value.hint


def test_the_command_refuses_with_one_json_object_and_status_two(
    tmp_path: Path, cytoray_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"model": {"name": "m"}, "data": {"root": "x"}, "training": {"epoch": 3}}))
    with pytest.raises(SystemExit) as caught:
        main(["train", str(path), "--json"])
    assert caught.value.code == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["field"] == "training.epoch"
    assert answer["hint"] == "did you mean 'epochs'?"
    assert not cytoray_home.exists()


def test_the_test_input_of_a_bundle_is_a_crop(tmp_path: Path, cells: Dataset) -> None:
    from cytoray_training.data.batches import test_input as input_for_test
    from cytoray_training.data.cache import open_cache

    plan = make_plan(recipe_for(cells), load_settings({"CYTORAY_HOME": str(tmp_path)}))
    cache = open_cache(tmp_path, plan.dataset, plan.dataset_hash, plan.model_input, plan.chosen_task)
    crop = input_for_test(plan, cache)
    assert crop.shape == (1, 64, 64)
    assert crop.dtype == np.float32
