"""From the best weights to a registered model: fit the decoding, evaluate, write the bundle, tell the registry."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from torch import Tensor

from cytoray_analysis.bundle import Bundle, write_bundle
from cytoray_analysis.errors import TrainingError
from cytoray_analysis.networks import dense
from cytoray_analysis.pictures import training_curves
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.tasks import fit_decode
from cytoray_services.evaluation import Evaluation, evaluate, extremes_sheet
from cytoray_services.model_card import model_card
from cytoray_services.registry import ModelVersion, Registry, Run
from cytoray_training.cache import Cache, open_cache
from cytoray_training.checkpoint import Checkpoint
from cytoray_training.plan import Plan
from cytoray_training.recipe import recipe_hash
from cytoray_training.validation import image_of, predictor_for

FITTING_PIXELS = 2**22
TEST_SIDE = 256


@dataclass(frozen=True)
class Published:
    """A trained model in the registry."""

    version: ModelVersion
    bundle: Bundle
    metrics: dict[str, float]


def publish(plan: Plan, checkpoint: Checkpoint, folder: Path, run: Run, registry: Registry) -> Published:
    """Make the best weights of a training a bundle, evaluate it, and register it as the candidate.

    Parameters
    ----------
    plan
        What was trained on what.
    checkpoint
        The last one of the training; it carries the best weights.
    folder
        Of the run; the bundle is written to ``folder/bundle``.
    run
        The MLflow run of the training.
    registry
        Where the model is registered, under its recipe's name, with the alias ``candidate``.

    Raises
    ------
    TrainingError
        The training never came to a validation.
    """
    if checkpoint.best is None:
        raise TrainingError("the training ended before its first validation, so that there are no best weights")
    cache = open_cache(plan.home, plan.dataset, plan.dataset_hash, plan.model_input)
    decode = fit(plan, cache, checkpoint.best)
    spec = plan.bundle_spec(cache.statistics, decode=decode, provenance=provenance(plan, checkpoint, run.run_id))
    test_input = test_crop(plan, cache)
    with tempfile.TemporaryDirectory(prefix="cytoray-publish-") as scratch:
        draft = write_bundle(Path(scratch) / "bundle", spec, checkpoint.best, test_input=test_input, card="Draft.\n")
        evaluation = evaluate(Predictor(draft), plan.dataset.split("val"))
    card = model_card(spec, evaluation.metrics, data={plan.dataset.root.name: plan.dataset_hash})
    bundle = write_bundle(folder / "bundle", spec, checkpoint.best, test_input=test_input, card=card)
    _record(run, plan, checkpoint, evaluation, card)
    registered = registry.register(bundle.folder, plan.recipe.model.name, run_id=run.run_id, metrics=evaluation.metrics)
    return Published(registered, bundle, evaluation.metrics)


def fit(plan: Plan, cache: Cache, weights: dict[str, Tensor]) -> dict[str, float]:
    """Fit the decode parameters on validation images, at most about four megapixels of them, evenly chosen."""
    split = cache.splits["val"]
    pixels = sum(int(np.prod(entry.shape[1:])) for entry in split.entries)
    chosen = range(0, len(split.entries), max(1, round(pixels / FITTING_PIXELS)))
    with tempfile.TemporaryDirectory(prefix="cytoray-fit-") as scratch:
        predictor = predictor_for(plan, cache, weights, Path(scratch) / "bundle", None)
        outputs = [predictor.outputs(image_of(plan, split, index)) for index in chosen]
    return fit_decode(plan.task, outputs, [split.labels_of(index) for index in chosen])


def test_crop(plan: Plan, cache: Cache) -> NDArray[np.float32]:
    """Return the middle of the validation image with the most objects, scaled, sides a multiple of the stride."""
    split = cache.splits["val"]
    index = max(range(len(split.entries)), key=lambda place: split.entries[place].objects)
    from cytoray_analysis.networks import build_network

    stride = dense(build_network(plan.network.name, plan.network.arguments)).stride
    region = []
    for length in split.entries[index].shape[1:]:
        side = max(min(TEST_SIDE, length) // stride, 1) * stride
        start = max((length - side) // 2, 0)
        region.append(slice(start, start + side))
    crop = split.scaled(index, tuple(region))
    missing = [(0, -length % stride) for length in crop.shape[1:]]
    return np.pad(crop, [(0, 0), *missing])


def provenance(plan: Plan, checkpoint: Checkpoint, run_id: str) -> dict[str, Any]:
    """Return where a model comes from."""
    return {
        "run": run_id,
        "recipe": recipe_hash(plan.recipe),
        "data": plan.dataset_hash,
        "code": code_version(),
        "trained": datetime.now(UTC).isoformat(timespec="seconds"),
        "training_seconds": round(checkpoint.journal.elapsed, 1),
        "epoch": int(checkpoint.journal.best["epoch"]),
    }


def code_version() -> str:
    """Return the git revision of this code, with ``+changes`` if files differ from it; else the package's version."""
    here = Path(__file__).parent
    revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    if revision.returncode != 0:
        return f"cytoray {version('cytoray')}"
    changes = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no"], cwd=here, capture_output=True, text=True, check=False
    )
    return revision.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


def _record(run: Run, plan: Plan, checkpoint: Checkpoint, evaluation: Evaluation, card: str) -> None:
    """Leave in the run what people look at."""
    history = checkpoint.journal.history
    run.log_metrics({f"final_{name}": value for name, value in evaluation.metrics.items()}, step=len(history))
    recipe = yaml.safe_dump(plan.recipe.model_dump(mode="json"), sort_keys=False)
    run.log_text(recipe, "recipe.yaml")
    run.log_text(card, "README.md")
    drawn = {"epoch", "loss", "learning_rate", *evaluation.metrics}
    curves = training_curves([{name: epoch[name] for name in epoch if name in drawn} for epoch in history])
    run.log_bytes(curves, "pictures/curves.png")
    run.log_bytes(extremes_sheet(evaluation), "pictures/worst_and_best.png")
