"""From the best weights to a registered model: fit the decoding, evaluate, write the bundle, tell the registry."""

from __future__ import annotations

import logging
import math
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from cytoray_analysis.bundle import Bundle, write_bundle
from cytoray_analysis.errors import PlatformError, TrainingError
from cytoray_analysis.pictures import training_curves
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.tasks import fit_decode
from cytoray_services.datasets import read_labelled
from cytoray_services.evaluation import Evaluation, evaluate
from cytoray_services.evaluation_pictures import evaluation_pictures
from cytoray_services.model_card import model_card
from cytoray_services.promotion.seen_data import record_seen_data
from cytoray_services.registry import KeptRun, ModelVersion, Registry, Run
from cytoray_training.batches import test_input
from cytoray_training.cache import Source
from cytoray_training.checkpoint import Checkpoint
from cytoray_training.diagnosis.diagnose import conclude
from cytoray_training.plan import Plan, data_source
from cytoray_training.recipe import recipe_hash
from cytoray_training.source import open_source
from cytoray_training.validation import predictor_for

logger = logging.getLogger(__name__)

FITTING_PIXELS = 2**22


@dataclass(frozen=True)
class Published:
    """A trained model, and its place in the registry; None while that does not answer."""

    version: ModelVersion | None
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
        Where the model is registered, under its recipe's name, with the alias ``candidate``. Where it does not answer
        and `run` is one that is kept, the bundle stays in `folder`, to be imported later.

    Raises
    ------
    TrainingError
        The training never came to a validation.
    """
    bundle, metrics = bundled(plan, checkpoint, folder, run)
    name = plan.recipe.model.name
    try:
        if run.kept:  # a version needs its run
            raise PlatformError("MLflow did not answer during this training")
        return Published(registry.register(bundle.folder, name, run_id=run.run_id, metrics=metrics), bundle, metrics)
    except PlatformError as error:
        if not isinstance(run, KeptRun):
            raise
        run.keep_registration(name, metrics)
        logger.warning("%s; register it later with: cytoray models import %s", error.message, bundle.folder)
        return Published(None, bundle, metrics)


def bundled(plan: Plan, checkpoint: Checkpoint, folder: Path, run: Run) -> tuple[Bundle, dict[str, float]]:
    """Make the bundle of :func:`publish` and its scores on the validation data, without registering it."""
    if checkpoint.best is None:
        raise TrainingError("the training ended before its first validation, so that there are no best weights")
    source = open_source(plan)
    decode = fit(plan, source, checkpoint.best)
    spec = plan.bundle_spec(source.statistics, decode=decode, provenance=provenance(plan, checkpoint, run.run_id))
    inputs = test_input(plan, source)
    with tempfile.TemporaryDirectory(prefix="cytoray-publish-") as scratch:
        draft = write_bundle(Path(scratch) / "bundle", spec, checkpoint.best, test_input=inputs, card="Draft.\n")
        evaluation = evaluate(Predictor(draft), plan.dataset.split("val"))
    names = " + ".join(str(root).rpartition("/")[2] for root in plan.recipe.data.roots)
    card = model_card(spec, evaluation.metrics, data={names: plan.dataset_hash})
    bundle = write_bundle(folder / "bundle", spec, checkpoint.best, test_input=inputs, card=card)
    _record(run, plan, checkpoint, evaluation, card)
    conclude(plan, Predictor(bundle), evaluation, folder, run)
    return bundle, evaluation.metrics


def fit(plan: Plan, source: Source, weights: dict[str, Tensor]) -> dict[str, float]:
    """Fit the decode parameters on validation images, evenly chosen until about four megapixels are reached."""
    dataset = plan.dataset.split("val")
    images = [read_labelled(dataset, items, plan.chosen_task.arguments) for items in dataset.images]
    pixels = sum(math.prod(one.image.spatial_shape) for one in images)
    chosen = images[:: max(1, round(pixels / FITTING_PIXELS))]
    with tempfile.TemporaryDirectory(prefix="cytoray-fit-") as scratch:
        predictor = predictor_for(plan, source, weights, Path(scratch) / "bundle", None)
        outputs = [predictor.outputs(one.image, one.objects) for one in chosen]
    return fit_decode(plan.task, outputs, [one.truth for one in chosen])


def provenance(plan: Plan, checkpoint: Checkpoint, run_id: str) -> dict[str, Any]:
    """Return where a model comes from."""
    return {
        **({"run": run_id} if run_id else {}),
        "recipe": recipe_hash(plan.recipe),
        "data": plan.dataset_hash,
        "code": code_version(),
        "trained": datetime.now(UTC).isoformat(timespec="seconds"),
        "training_seconds": round(checkpoint.journal.elapsed, 1),
        "epoch": int(checkpoint.journal.best["epoch"]),
        **({"parent": plan.start.identity} if plan.start else {}),
    }


def code_version() -> str:
    """Return the git revision of this code, with ``+changes`` if files differ from it; else the package's version.

    Where there is no git, as in a container, ``CYTORAY_REVISION`` names the revision.
    """
    if shutil.which("git") is None:  # as in a container, whose builder may tell
        return os.environ.get("CYTORAY_REVISION") or f"cytoray {version('cytoray')}"
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
    record_seen_data(run, data_source(plan.recipe), plan.dataset, plan.dataset_hash)
    drawn = {"epoch", "loss", "learning_rate", *evaluation.metrics}
    curves = training_curves([{name: epoch[name] for name in epoch if name in drawn} for epoch in history])
    run.log_bytes(curves, "pictures/curves.png")
    for name, picture in evaluation_pictures(evaluation).items():
        run.log_bytes(picture, f"pictures/{name}.png")
