"""Put a trained model into the package: half precision, a made input for its test, and a card with scores by kind.

    python deploy/ship_model.py nuclei [--model nuclei@candidate] [--out FOLDER]
    python deploy/ship_model.py nuclei --checkpoints OUT/nuclei   # of deploy/train_models.py
    python deploy/ship_model.py nuclei --model nuclei/0 --refit   # the same weights, decode parameters fitted again

Reads ``training/recipes/shipped/NAME.yaml``, and the text of the card beside it, whose head names authors, licence and
citations. The model is scored on the split ``val`` of its data, which its training run did not read, kind by kind.
``make models`` trains it first. A recipe without a section ``training`` has a network without weights.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter
from torch import Tensor

from cytoray_analysis.bundle import WEIGHTS, Bundle, Model, ModelInMemory, write_bundle
from cytoray_analysis.errors import CytorayError, ModelNotFoundError
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.tasks import get_task
from cytoray_analysis.tracking.candidates import FEATURES
from cytoray_services.datasets import Dataset
from cytoray_services.evaluation.evaluation import evaluate
from cytoray_services.kinds.evaluated import Evaluation
from cytoray_services.registry import load_bundle
from cytoray_services.registry.card_record import VersionRecord, with_record
from cytoray_services.registry.model_card import model_card
from cytoray_services.settings import SHIPPED, load_settings
from cytoray_services.statistics.intervals import shown
from cytoray_training.data.source import open_source
from cytoray_training.plan.image_kinds import kind_of
from cytoray_training.plan.plan import data_source
from cytoray_training.plan.planning import make_plan
from cytoray_training.publish.publish import fitted, provenance, usual_diameter
from cytoray_training.recipe import Recipe, load_recipe
from cytoray_training.run.checkpoint import checkpoints, newest_whole

RECIPES = Path(__file__).resolve().parents[1] / "training" / "recipes" / "shipped"
LARGEST = 12 * 2**20  # bytes of the weights
_SIDE = 64
# Scores in the table of the card, of those that a task has.
_SHOWN = ("msa", "ap50", "ap75", "ap90", "balanced_accuracy", "accuracy", "iou", "division_f1", "tra", "lnk")


def main() -> int:
    """Ship one model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name")
    parser.add_argument("--model", help="a version in the registry or a bundle folder; NAME@candidate by default")
    parser.add_argument("--checkpoints", type=Path, help="folder of a training run without registry, instead")
    parser.add_argument("--refit", action="store_true", help="fit the decode parameters of the model again")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder of shipped models")
    arguments = parser.parse_args()
    try:
        recipe = load_recipe(RECIPES / f"{arguments.name}.yaml", [])
        bundle: Model
        if arguments.checkpoints is not None:
            bundle = trained(recipe, arguments.checkpoints)
        elif "training" in recipe.model_fields_set:
            bundle = load_bundle(arguments.model or f"{arguments.name}@candidate", load_settings())[0]
        else:
            bundle = as_it_is(recipe)
        if arguments.refit:
            bundle = refitted(bundle, recipe)
        shipped = ship(bundle, recipe, arguments.out / arguments.name)
    except CytorayError as error:
        print(f"error: {error.message}" + (f"\n hint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return error.exit_status
    print(f"{shipped.folder}: {(shipped.folder / WEIGHTS).stat().st_size / 2**20:.1f} MB, digest {shipped.digest[:12]}")
    return 0


def trained(recipe: Recipe, folder: Path) -> ModelInMemory:
    """Return the best model of a training run that was not registered, with fitted decode parameters.

    Raises
    ------
    ModelNotFoundError
        The folder has no intact checkpoint with a score.
    """
    plan = make_plan(recipe, load_settings())
    checkpoint = newest_whole(checkpoints(folder), lambda text: print(text, file=sys.stderr))
    if checkpoint is None or checkpoint.best is None:
        raise ModelNotFoundError(f"expected checkpoints of a training run that was validated, found none in {folder}")
    return fitted(plan, open_source(plan), checkpoint.best, provenance(plan, checkpoint, ""))


def as_it_is(recipe: Recipe) -> ModelInMemory:
    """Return the model of a recipe whose network has no weights, with the default decode parameters."""
    plan = make_plan(recipe, load_settings())
    source = open_source(plan)
    decode, diameter = plan.task.output.defaults(), usual_diameter(plan, source)
    return ModelInMemory(plan.bundle_spec(source.statistics, decode=decode, diameter=diameter), {})


def ship(bundle: Model, recipe: Recipe, folder: Path) -> Bundle:
    """Write the shipped form of a model, scored on the given validation images."""
    halved = {name: half(tensor) for name, tensor in weights_of(bundle).items()}
    # The run is in the registry of this machine only.
    origin = {name: value for name, value in bundle.spec.provenance.items() if name not in ("run", "code")}
    origin |= _about(bundle.spec.name)[0]
    spec = bundle.spec.model_copy(update={"provenance": origin})
    links = get_task(spec.task.name, spec.task.arguments).output.per == "link"
    inputs = made_candidates() if links else made_input(spec.input.inputs, len(spec.input.spatial_axes))
    shipped = write_bundle(folder, spec, halved, test_input=inputs, card="")
    evaluations = scored(Predictor(shipped), recipe)
    for kind, one in evaluations.items():
        print(kind, len(one.items), {name: round(value, 3) for name, value in one.metrics.items()})
    return write_bundle(folder, spec, halved, test_input=inputs, card=card_of(shipped, recipe, evaluations))


def refitted(bundle: Model, recipe: Recipe) -> ModelInMemory:
    """Return a model with decode parameters that are fitted again on the images which chose them before."""
    plan = make_plan(recipe, load_settings())
    return fitted(plan, open_source(plan), weights_of(bundle), bundle.spec.provenance)


def weights_of(bundle: Model) -> dict[str, Tensor]:
    """Return the weights of a model."""
    return dict(bundle.weights) if isinstance(bundle, ModelInMemory) else load_file(bundle.folder / WEIGHTS)


def half(tensor: Tensor) -> Tensor:
    """Return a tensor in half precision, unless a value of it would be lost."""
    halved = tensor.half() if tensor.is_floating_point() else tensor
    return halved if torch.isfinite(halved).all() else tensor


def made_input(channels: int, axes: int) -> NDArray[np.float32]:
    """Draw blurred disks: an input for the test of the bundle that is no crop of anybody's image."""
    chance = np.random.default_rng(0)
    image = np.zeros((16, _SIDE, _SIDE)[-axes:], np.float32)
    grid = np.indices(image.shape)
    for _ in range(12):
        centre = [chance.uniform(0, side) for side in image.shape]
        distance = sum((grid[axis] - centre[axis]) ** 2 for axis in range(axes))
        image[distance < chance.uniform(3, 8) ** 2] = chance.uniform(0.4, 1.0)
    return np.repeat(gaussian_filter(image, 1.0)[np.newaxis], channels, axis=0)


def made_candidates() -> NDArray[np.float32]:
    """Draw features of candidates, for the test of a model that links."""
    return np.random.default_rng(0).standard_normal((FEATURES, 128), np.float32)


def scored(predictor: Predictor, recipe: Recipe) -> dict[str, Evaluation]:
    """Score a model on the given split ``val``, kind by kind."""
    dataset = replace(data_source(recipe), drawing_validation=False, drawing_test=False).open().split("val")
    kinds = dict.fromkeys(kind_of(item, recipe) for item in dataset.items)
    return {kind: evaluate(predictor, _of_kind(dataset, kind, recipe)) for kind in kinds}


def _of_kind(dataset: Dataset, kind: str, recipe: Recipe) -> Dataset:
    return replace(dataset, items=tuple(item for item in dataset.items if kind_of(item, recipe) == kind))


def _about(name: str) -> tuple[dict[str, Any], str]:
    """Return authors, licence and citations of a model, and the text of its card."""
    _, head, text = (RECIPES / f"{name}.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), text


def card_of(bundle: Bundle, recipe: Recipe, evaluations: Mapping[str, Evaluation]) -> str:
    """Write the card: the text beside the recipe, scores by kind, and what every card has."""
    means = {
        name: math.fsum(one.metrics[name] for one in evaluations.values()) / len(evaluations)
        for name in _SHOWN
        if all(name in one.metrics for one in evaluations.values())
    }
    rows = ["| kind | images | " + " | ".join(means) + " |", "|---|---|" + "---|" * len(means)]
    for kind, one in evaluations.items():
        cells = [shown(one.metrics[name], one.intervals.get(name)) for name in means]
        rows.append(f"| {'all' if kind in ('', '*') else kind} | {len(one.items)} | " + " | ".join(cells) + " |")
    text = _about(bundle.spec.name)[1]
    trained = any(True for _ in bundle.network().parameters())
    chose = ", which chose the epoch and the decoding" if recipe.data.validation else ", which training did not read"
    scores = f"## Scores by kind of image\n\nOn the split `val`{chose if trained else ''}, with 95 % intervals:"
    data = {"training": str(bundle.spec.provenance.get("data", "unknown"))}
    general = model_card(bundle.spec, {}, data=data, trained=trained)
    title, about, *rest = general.split("\n\n## ")[0].split("\n\n") + general.split("\n\n## ")[1:]
    technical = [f"## {section}" for section in rest if not section.startswith("Scores on validation data")]
    card = "\n\n".join([title, about, text.strip(), scores + "\n\n" + "\n".join(rows), *technical])
    tags = {"released": f"{datetime.now(UTC):%Y-%m-%d}"}
    return with_record(card, VersionRecord(metrics=means, tags=tags))


if __name__ == "__main__":
    sys.exit(main())
