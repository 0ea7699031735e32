"""From the best weights to a registered model: fit the decoding, evaluate, write the bundle, tell the registry."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from cytoray_analysis.bundle import Bundle, BundleSpec, write_bundle
from cytoray_analysis.errors import BundleError, ModelNotFoundError, PlatformError, UntrainableError
from cytoray_analysis.pictures import training_curves
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.tasks import fit_decode
from cytoray_services.card_record import VersionRecord, with_record
from cytoray_services.datasets import read_parts
from cytoray_services.evaluation import Evaluation, evaluate
from cytoray_services.evaluation_pictures import evaluation_pictures
from cytoray_services.model_card import model_card
from cytoray_services.promotion.seen_data import record_seen_data
from cytoray_services.registry import KeptRun, ModelVersion, Registry, Run
from cytoray_training.batches import test_input
from cytoray_training.cache import Source
from cytoray_training.checkpoint import Checkpoint
from cytoray_training.data_check import CHANGED
from cytoray_training.diagnosis.diagnose import conclude
from cytoray_training.out_of_fold import calibrated_out_of_fold
from cytoray_training.plan import Plan, data_source
from cytoray_training.recipe import recipe_hash
from cytoray_training.source import open_source
from cytoray_training.validation import predictor_for

logger = logging.getLogger(__name__)

FITTING_PIXELS = 2**22
CHOSEN_BY = "of the validation images, which chose the epoch, the decoding and the calibration: somewhat too good"


@dataclass(frozen=True)
class Published:
    """A trained model, how good it is on its validation images, and its place in the registry.

    The place is None while the registry does not answer.
    """

    version: ModelVersion | None
    bundle: Bundle
    evaluation: Evaluation


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
    UntrainableError
        The training never came to a validation.
    """
    bundle, evaluation = bundled(plan, checkpoint, folder, run)
    name, metrics = plan.recipe.model.name, evaluation.metrics
    try:
        if run.kept:  # a version needs its run
            raise PlatformError("MLflow did not answer during this training")
        version = registry.register(bundle.folder, name, run_id=run.run_id, metrics=metrics)
        return Published(version, bundle, evaluation)
    except PlatformError as error:
        if not isinstance(run, KeptRun):
            raise
        run.keep_registration(name, metrics)
        logger.warning("%s; register it later with: cytoray models import %s", error.message, bundle.folder)
        return Published(None, bundle, evaluation)


def bundled(plan: Plan, checkpoint: Checkpoint, folder: Path, run: Run) -> tuple[Bundle, Evaluation]:
    """Make the bundle of :func:`publish` and evaluate it on the validation data, without registering it."""
    if checkpoint.best is None:
        raise UntrainableError(
            f"the training ended before a validation had a score {plan.metric}, so that there are no best weights",
            field="training.metric",
            hint="train longer, or choose another training.metric",
        )
    names = " + ".join(str(root).rpartition("/")[2] for root in plan.recipe.data.roots)
    origin = provenance(plan, checkpoint, run.run_id)
    bundle = _made_before(folder / "bundle", origin)
    if bundle is not None:
        evaluation = _evaluated(Predictor(bundle), plan)
        card = _card(bundle.spec, evaluation, {names: plan.dataset_hash})
    else:
        source = open_source(plan)
        decode = fit(plan, source, checkpoint.best)
        spec = plan.bundle_spec(source.statistics, decode=decode, provenance=origin)
        inputs = test_input(plan, source)
        with tempfile.TemporaryDirectory(prefix="cytoray-publish-") as scratch:
            draft = write_bundle(Path(scratch) / "bundle", spec, checkpoint.best, test_input=inputs, card="Draft.\n")
            evaluation = _evaluated(Predictor(draft), plan)
        card = _card(spec, evaluation, {names: plan.dataset_hash})
        known = with_record(card, VersionRecord(metrics=evaluation.metrics))
        bundle = write_bundle(folder / "bundle", spec, checkpoint.best, test_input=inputs, card=known)
    _record(run, plan, checkpoint, evaluation, card)
    conclude(plan, Predictor(bundle), evaluation, folder, run)
    return bundle, evaluation


def _evaluated(predictor: Predictor, plan: Plan) -> Evaluation:
    return calibrated_out_of_fold(evaluate(predictor, plan.dataset.split("val")), predictor)


def _card(spec: BundleSpec, evaluation: Evaluation, data: dict[str, str]) -> str:
    out_of_fold = len(set(evaluation.units)) > 1
    calibrated = evaluation.calibrated_error() if out_of_fold else None
    return model_card(spec, evaluation.metrics, data=data, intervals=evaluation.intervals, calibrated=calibrated)


def _made_before(folder: Path, origin: dict[str, Any]) -> Bundle | None:
    """Return the bundle of this very training that was written before the process was killed; None if there is none.

    It is taken as it is: fitted once more by other code or on another device, it could get another digest, and one run
    two versions.
    """
    try:
        bundle = Bundle.load(folder)
        bundle.self_test()
    except (BundleError, ModelNotFoundError):
        return None
    wanted = json.loads(json.dumps({name: value for name, value in origin.items() if name != "code"}))
    return bundle if wanted.items() <= bundle.spec.provenance.items() else None


def fit(plan: Plan, source: Source, weights: dict[str, Tensor]) -> dict[str, float]:
    """Fit the decode parameters on validation images, evenly chosen until about four megapixels are reached."""
    dataset = plan.dataset.split("val")
    arguments = plan.chosen_task.arguments
    images = [part for items in dataset.images for part in read_parts(dataset, items, arguments)]
    pixels = sum(math.prod(one.image.spatial_shape) for one in images)
    chosen = images[:: max(1, round(pixels / FITTING_PIXELS))]
    with tempfile.TemporaryDirectory(prefix="cytoray-fit-") as scratch:
        predictor = predictor_for(plan, source, weights, Path(scratch) / "bundle", None)
        outputs = [predictor.outputs(one.image, one.objects) for one in chosen]
    return fit_decode(plan.task, outputs, [one.truth for one in chosen])


def provenance(plan: Plan, checkpoint: Checkpoint, run_id: str) -> dict[str, Any]:
    """Return where a model comes from: the same at each call, but for ``code`` where that was changed in between."""
    return {
        **({"run": run_id} if run_id else {}),
        "recipe": recipe_hash(plan.recipe),
        "data": plan.dataset_hash,
        "code": code_version(),
        **({"trained": checkpoint.journal.ended} if checkpoint.journal.ended else {}),
        "training_seconds": round(checkpoint.journal.elapsed, 1),
        "epoch": int(checkpoint.journal.best["epoch"]),
        **({"select": plan.recipe.data.select.given()} if plan.recipe.data.select.given() else {}),
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
    return revision.stdout.strip() + (CHANGED if changes.stdout.strip() else "")


def _record(run: Run, plan: Plan, checkpoint: Checkpoint, evaluation: Evaluation, card: str) -> None:
    """Leave in the run what people look at."""
    history = checkpoint.journal.history
    run.log_metrics({f"final_{name}": value for name, value in evaluation.metrics.items()}, step=len(history))
    recipe = yaml.safe_dump(plan.recipe.model_dump(mode="json"), sort_keys=False)
    run.log_text(recipe, "recipe.yaml")
    run.log_text(card, "README.md")
    warnings = [*plan.warnings, *(str(one) for one in evaluation.warnings)]
    if warnings:
        run.log_text("\n".join(warnings) + "\n", "warnings.txt")
    record_seen_data(run, data_source(plan.recipe), plan.dataset, plan.dataset_hash)
    drawn = {"epoch", "loss", "learning_rate", *evaluation.metrics}
    curves = training_curves([{name: epoch[name] for name in epoch if name in drawn} for epoch in history])
    run.log_bytes(curves, "pictures/curves.png")
    for name, picture in evaluation_pictures(evaluation).items():
        run.log_bytes(picture, f"pictures/{name}.png")
