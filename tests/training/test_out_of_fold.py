"""The calibration error of a published classifier: each image by a temperature that was fitted on others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cytoray_analysis.bundle import write_bundle
from cytoray_analysis.networks import build_network
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.tasks import fit_decode
from cytoray_services.datasets.synthetic.classification import make_classification
from cytoray_services.evaluation.evaluation import evaluate
from cytoray_services.registry.model_card import model_card
from cytoray_training.data.cache import open_cache
from cytoray_training.publish.out_of_fold import FOLDS, calibrated_out_of_fold
from planted_faults import CLASSES, plan_for


@pytest.mark.slow
def test_the_calibration_error_of_validation_images_is_taken_out_of_fold(tmp_path: Path) -> None:
    dataset = make_classification(tmp_path / "data", images=16, size=96, seed=1, classes=2)
    linear = {"model": {"network": {"name": "linear", "arguments": {}}}}
    plan = plan_for(dataset, tmp_path, {**CLASSES, "model": CLASSES["model"] | linear["model"]})
    cache = open_cache(plan.cache, plan.dataset, plan.dataset_hash, plan.model_input, plan.chosen_task)
    torch.manual_seed(0)
    weights = build_network(plan.network.name, plan.network.arguments).state_dict()
    blank = np.zeros((plan.examples.inputs(plan.model_input), *plan.crop), np.float32)
    draft = write_bundle(
        tmp_path / "draft", plan.bundle_spec(cache.statistics), weights, test_input=blank, card="Draft.\n"
    )
    split = plan.dataset.split("train")
    items = evaluate(Predictor(draft), split).items
    outputs = [Predictor(draft).outputs(item.labelled.image, item.labelled.objects) for item in items]
    truths = [item.labelled.truth for item in items]
    spec = plan.bundle_spec(cache.statistics, decode=fit_decode(plan.task, outputs, truths))
    predictor = Predictor(write_bundle(tmp_path / "fitted", spec, weights, test_input=blank, card="Test.\n"))
    within = evaluate(predictor, split)

    found = calibrated_out_of_fold(within, predictor)

    first = [at for at in range(len(items)) if at % FOLDS]
    decode = fit_decode(plan.task, [outputs[at] for at in first], [truths[at] for at in first])
    expected = plan.task.decode(outputs[0], decode).values
    assert np.allclose(found.items[0].prediction.scored, expected, atol=1e-5)
    answers = [item.prediction.scored for item in found.items]
    assert found.metrics["ece"] == plan.task.score(answers, truths)["ece"] != within.metrics["ece"]
    assert {**found.metrics, "ece": 0.0} == {**within.metrics, "ece": 0.0}
    calibrated = found.calibrated_error()
    assert calibrated is not None
    card = model_card(predictor.bundle.spec, found.metrics, data={}, calibrated=calibrated)
    assert f"{found.metrics['ece']:.3f} ({calibrated.mean:.3f} is expected of calibrated answers" in card
    alone = replace(within, items=within.items[:1])
    assert calibrated_out_of_fold(alone, predictor) is alone
