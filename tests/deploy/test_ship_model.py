"""A trained model becomes one that comes with the package."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors import safe_open

from cytoray_analysis.bundle import WEIGHTS, Bundle
from cytoray_analysis.images import image_from_array
from cytoray_analysis.networks.overlap import overlap_then_distance
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.tracking.ctc import read_masks, read_movie
from cytoray_analysis.tracking.linking import link_movie
from cytoray_services.datasets import make_segmentation
from cytoray_services.datasets.synthetic.tracking import make_tracking
from cytoray_services.registry.shipped import ShippedModels
from cytoray_training.recipe import parse_recipe
from serving_samples import noise, write_small_bundle

REPOSITORY = Path(__file__).resolve().parents[2]
SHIP = runpy.run_path(str(REPOSITORY / "deploy" / "ship_model.py"))


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    """Return a trained bundle and its shipped form."""
    folder = tmp_path_factory.mktemp("ship")
    make_segmentation(folder / "cells", images=8, size=64, transmitted=0.5)
    data = {"root": str(folder / "cells"), "draw_validation": True, "kind": "kind", "shares": {"*": 1}}
    recipe = parse_recipe({"model": {"name": "nuclei"}, "data": data})
    trained = Bundle.load(write_small_bundle(folder / "trained"))
    return trained, SHIP["ship"](trained, recipe, folder / "shipped" / "nuclei")


def test_weights_are_halved_and_answers_stay(shipped: tuple[Bundle, Bundle]) -> None:
    trained, small = shipped
    with safe_open(small.folder / WEIGHTS, "pt") as file:
        kinds = {str(file.get_tensor(name).dtype) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    assert kinds <= {"torch.float16", "torch.int64"}
    assert small.self_test() < 1e-3
    image = image_from_array(noise(128, 128), "YX")
    before, after = (Predictor(bundle, precision="fp32").predict(image).answer for bundle in shipped)
    assert np.mean((before > 0) != (after > 0)) < 0.01
    assert trained.digest != small.digest


def test_the_card_has_scores_by_kind_data_and_limits_and_the_registry_reads_them(
    shipped: tuple[Bundle, Bundle],
) -> None:
    card = (shipped[1].folder / "README.md").read_text()
    for words in ("## Scores by kind of image", "| all |", "CC0", "Not for"):
        assert words in card
    (name,) = ShippedModels(shipped[1].folder.parent).names
    version = ShippedModels(shipped[1].folder.parent).version(name, {})
    assert version.reference == "nuclei/0"
    assert {"msa", "ap50"} <= version.metrics.keys()
    assert version.created.year >= 2026


def test_the_input_of_the_self_test_is_drawn(shipped: tuple[Bundle, Bundle]) -> None:
    drawn = SHIP["made_input"](3, 2)
    assert drawn.shape == (3, 64, 64)
    np.testing.assert_array_equal(drawn[0], drawn[2])
    np.testing.assert_array_equal(drawn, SHIP["made_input"](3, 2))
    assert SHIP["made_input"](1, 3).shape == (1, 16, 64, 64)


@pytest.mark.slow
def test_a_model_without_weights_is_made_from_its_recipe_alone(tmp_path: Path, cytoray_home: Path) -> None:
    make_tracking(tmp_path / "movies", movies=5, frames=6, size=128, seed=2)
    data = {"root": str(tmp_path / "movies"), "draw_validation": True}
    recipe = parse_recipe(
        {"model": {"name": "overlap", "task": {"name": "tracking"}, "network": {"name": "overlap"}}, "data": data}
    )
    shipped = SHIP["ship"](SHIP["as_it_is"](recipe), recipe, tmp_path / "shipped" / "overlap")
    assert shipped.self_test() < 1e-3
    assert "| division_f1 |" in (shipped.folder / "README.md").read_text()
    movie, masks = read_movie(tmp_path / "movies" / "01"), read_masks(tmp_path / "movies" / "01_GT" / "TRA")
    answer = Predictor(shipped).predict(movie, masks).answer
    assert answer.table.tolist() == link_movie(movie, masks, overlap_then_distance, shipped.spec.decode).table.tolist()
    assert len(answer.table) > 3


@pytest.mark.slow
def test_a_model_is_trained_from_packed_data_without_a_registry_and_shipped(
    tmp_path: Path, cytoray_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_segmentation(tmp_path / "cells", images=8, size=64)
    network = {"arguments": {"widths": [8, 16]}}
    training = {"epochs": 1, "crops_per_epoch": 16, "crop_size": 64, "batch_size": 4}
    data = {"root": str(tmp_path / "cells"), "draw_validation": True, "channels": "grey"}
    recipe = {"model": {"name": "nuclei", "network": network}, "data": data, "training": training}
    (tmp_path / "nuclei.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    script = runpy.run_path(str(REPOSITORY / "deploy" / "train_models.py"))
    monkeypatch.setitem(script["main"].__globals__, "RECIPES", tmp_path)
    for words in (["--pack", "data.tar"], ["--data", "data.tar", "--out", "runs", "--minutes", "5"]):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["train_models.py", *words, "nuclei"])
        assert script["main"]() == 0
    model = SHIP["trained"](parse_recipe(recipe), tmp_path / "runs" / "nuclei")
    shipped = SHIP["ship"](model, parse_recipe(recipe), tmp_path / "shipped" / "nuclei")
    assert shipped.spec.input.diameter > 5
    assert "| all |" in (shipped.folder / "README.md").read_text()
