"""From the best weights to a registered model: fit the decoding, evaluate, write the bundle, register it."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from torch import Tensor

from cytoray_analysis.bundle import Bundle, ModelInMemory, write_bundle
from cytoray_analysis.errors import BundleError, ModelNotFoundError, PlatformError, UntrainableError
from cytoray_analysis.files import remove_drafts
from cytoray_analysis.images import resample_labels
from cytoray_analysis.images.resample import resample_image_to
from cytoray_analysis.object_width import usual_width
from cytoray_analysis.pictures import training_curves
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.tasks import fit_decode
from cytoray_services.datasets import Labelled, read_parts
from cytoray_services.evaluation.evaluation import evaluate
from cytoray_services.evaluation.pictures import evaluation_pictures
from cytoray_services.kinds.evaluated import Evaluation
from cytoray_services.promotion.seen_data import record_seen_data
from cytoray_services.registry import ModelVersion, OfflineRun, Registry, Run
from cytoray_services.registry.card_record import VersionRecord, with_record
from cytoray_services.registry.model_card import model_card
from cytoray_training.data.batches import test_input
from cytoray_training.data.cache import Source
from cytoray_training.data.source import open_source
from cytoray_training.diagnosis.diagnose import conclude
from cytoray_training.plan.code_version import code_version
from cytoray_training.plan.image_kinds import kind_of, kinds_of_files
from cytoray_training.plan.plan import Plan, data_source
from cytoray_training.publish.out_of_fold import calibrated_out_of_fold
from cytoray_training.recipe import recipe_hash
from cytoray_training.run.checkpoint import Checkpoint
from cytoray_training.run.validation import predictor_for

logger = logging.getLogger(__name__)

FITTING_PIXELS = 2**22
CHOSEN_BY = "of the validation images, which chose the epoch, the decoding and the calibration: slightly too high"


@dataclass(frozen=True)
class Published:
    """A trained model, its scores on the validation images, and its version in the registry.

    The version is None while the registry does not answer.
    """

    version: ModelVersion | None
    bundle: Bundle
    evaluation: Evaluation


def publish(
    plan: Plan,
    checkpoint: Checkpoint,
    folder: Path,
    run: Run,
    registry: Registry | None,
    tags: Mapping[str, Any] | None = None,
) -> Published:
    """Evaluate the best weights of a training run, make them a bundle, and register it as the candidate.

    Parameters
    ----------
    plan
        Recipe and data.
    checkpoint
        The last checkpoint of the training run; it contains the best weights.
    folder
        Of the run; the bundle is written to ``folder/bundle``.
    run
        The MLflow run.
    registry
        Where the model is registered, under its recipe's name, with the alias ``candidate``; None: do not register. If
        it does not answer and `run` is stored offline, the bundle stays in `folder`, to be imported later.
    tags
        Facts for the registration.

    Raises
    ------
    UntrainableError
        The training run never reached a validation.
    """
    if checkpoint.best is None:
        raise UntrainableError(
            f"expected a validation with a score {plan.metric}, found none when the training run ended, so there are "
            "no best weights",
            field="training.metric",
            hint="train longer, or choose another training.metric",
        )
    origin = provenance(plan, checkpoint, run.run_id)
    bundle = _made_before(folder / "bundle", origin)
    if bundle is not None:
        predictor = Predictor(bundle)
        evaluation, card = _evaluated(predictor, plan)
    else:
        source = open_source(plan)
        model = fitted(plan, source, checkpoint.best, origin)
        predictor = Predictor(model)
        evaluation, card = _evaluated(predictor, plan)
        known = with_record(card, VersionRecord(metrics=evaluation.metrics))
        remove_drafts(folder / "bundle")  # left by a killed process: no other process writes to this run
        inputs = test_input(plan, source)
        bundle = write_bundle(folder / "bundle", model.spec, checkpoint.best, test_input=inputs, card=known)
    _record(run, plan, checkpoint, evaluation, card)
    conclude(plan, predictor, evaluation, folder, run)
    version = None if registry is None else _registered(bundle, evaluation, run, registry, tags)
    return Published(version, bundle, evaluation)


def _registered(
    bundle: Bundle, evaluation: Evaluation, run: Run, registry: Registry, tags: Mapping[str, Any] | None
) -> ModelVersion | None:
    name, metrics = bundle.spec.name, evaluation.metrics
    try:
        if run.kept:  # a version needs its run
            raise PlatformError("MLflow did not answer during this training run")
        return registry.register(bundle.folder, name, run_id=run.run_id, metrics=metrics, tags=tags)
    except PlatformError as error:
        if not isinstance(run, OfflineRun):
            raise
        run.keep_registration(name, metrics)
        logger.warning("%s; register it later with: cytoray models import %s", error.message, bundle.folder)
        return None


def _evaluated(predictor: Predictor, plan: Plan) -> tuple[Evaluation, str]:
    """Evaluate a model on the validation images, and write its card."""
    evaluation = calibrated_out_of_fold(evaluate(predictor, plan.dataset.split("val")), predictor)
    data = {" + ".join(str(root).rpartition("/")[2] for root in plan.recipe.data.roots): plan.dataset_hash}
    out_of_fold = len(set(evaluation.units)) > 1
    card = model_card(
        predictor.bundle.spec,
        evaluation.metrics,
        data=data,
        intervals=evaluation.intervals,
        calibrated=evaluation.calibrated_error() if out_of_fold else None,
    )
    return evaluation, card


def _made_before(folder: Path, origin: dict[str, Any]) -> Bundle | None:
    """Return the bundle of this training run that was written before the process was killed; None if absent.

    It is reused unchanged: fitting it again with other code or on another device could change the digest, and one run
    would have two versions.
    """
    try:
        bundle = Bundle.load(folder)
        bundle.self_test()
    except (BundleError, ModelNotFoundError):
        return None
    wanted = json.loads(json.dumps({name: value for name, value in origin.items() if name != "code"}))
    return bundle if wanted.items() <= bundle.spec.provenance.items() else None


def fitted(plan: Plan, source: Source, weights: dict[str, Tensor], origin: dict[str, Any]) -> ModelInMemory:
    """Return a model of trained weights with its decode parameters, usual width of objects, and origin."""
    decode, diameter = fit(plan, source, weights), usual_diameter(plan, source)
    return ModelInMemory(
        plan.bundle_spec(source.statistics, decode=decode, diameter=diameter, provenance=origin), weights
    )


def fit(plan: Plan, source: Source, weights: dict[str, Tensor]) -> dict[str, float]:
    """Fit the decode parameters on evenly spaced validation images of each kind, up to about four megapixels."""
    dataset = plan.dataset.split("val")
    images: dict[str, list[Labelled]] = {}
    for items in dataset.images:
        read = read_parts(dataset, items, plan.chosen_task.arguments)
        images.setdefault(kind_of(items[0], plan.recipe), []).extend(read)
    chosen, kinds = [], []
    for kind, parts in images.items():
        pixels = sum(math.prod(one.image.spatial_shape) for one in parts)
        some = parts[:: max(1, round(pixels * len(images) / FITTING_PIXELS))]
        chosen += some
        kinds += [kind] * len(some)
    predictor = predictor_for(plan, source, weights)
    outputs = [predictor.outputs(one.image, one.objects) for one in chosen]
    begin = plan.start.decode if plan.start else {}
    truths = [_as_seen(one.truth, output, plan) for one, output in zip(chosen, outputs, strict=True)]
    return fit_decode(plan.task, outputs, truths, kinds, begin=begin)


def _as_seen(truth: Any, outputs: Any, plan: Plan) -> Any:
    """Return the truth of an image at the pixels that the network saw."""
    if plan.task.output.per != "pixel":
        return truth
    resample = resample_image_to if truth.dtype.kind == "f" else resample_labels
    return resample(truth, outputs.shape[1:])


def usual_diameter(plan: Plan, source: Source) -> float | None:
    """Return the usual width of an object in the training images, each kind of image counting the same.

    Returns
    -------
    float or None
        In pixels of the network; None where masks do not number objects.
    """
    output, window = plan.task.output, source.window(0)
    if output.per != "pixel" or output.truth != "labels" or not output.numbered:
        return None
    kinds = kinds_of_files(plan.dataset, plan.recipe)
    widths: dict[str, list[float]] = {}
    for index, entry in enumerate(window.entries):
        width = usual_width(window.truth(index))
        if width is not None:
            widths.setdefault(kinds.get(entry.file, ""), []).append(width)
    medians = [float(np.median(found)) for found in widths.values()]
    return round(float(np.exp(np.mean(np.log(medians)))), 1) if medians else None


def provenance(plan: Plan, checkpoint: Checkpoint, run_id: str) -> dict[str, Any]:
    """Return the origin of a model: the same at each call, except ``code`` if that changed in between."""
    return {
        **({"run": run_id} if run_id else {}),
        "recipe": recipe_hash(plan.recipe),
        "data": plan.dataset_hash,
        "code": code_version(),
        **({"trained": checkpoint.progress.ended} if checkpoint.progress.ended else {}),
        "training_seconds": round(checkpoint.progress.elapsed, 1),
        "epoch": int(checkpoint.progress.best["epoch"]),
        **({"select": plan.recipe.data.select.given()} if plan.recipe.data.select.given() else {}),
        **({"parent": plan.start.identity} if plan.start else {}),
    }


def _record(run: Run, plan: Plan, checkpoint: Checkpoint, evaluation: Evaluation, card: str) -> None:
    """Store in the run what people look at."""
    history = checkpoint.progress.history
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
