"""The rules over simulated training runs: rarely wrong, and no remedy that contradicts what ended the training.

At full size: ``tests/bench/diagnosis_errors.py``.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from cytoray_training.diagnosis.facts import EndedBy, Facts, Steps
from cytoray_training.diagnosis.findings import find
from simulated_curves import FAULTS, simulated


def told(facts: Facts) -> dict[str, str]:
    return {finding.name: finding.remedy for finding in find(facts)}


@pytest.mark.slow
def test_healthy_trainings_are_not_accused() -> None:
    accused = {seed: names for seed in range(20) if (names := set(told(simulated(seed))))}
    assert len(accused) <= 1, accused


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str) -> None:
    found = sum(fault in told(simulated(seed, fault)) for seed in range(4))
    assert found >= 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ended_by", "wanted", "contradicts"),
    [
        ("epochs", "training.epochs: 32", "training.minutes"),
        ("minutes", "training.minutes: 12", "training.epochs: 64"),
        ("early stopping", "training.early_stopping: 12", "training.epochs"),
        ("stop", "the same command continues", "training.epochs"),
    ],
)
def test_what_is_advised_to_an_unfinished_model_follows_from_what_ended_its_training(
    ended_by: EndedBy, wanted: str, contradicts: str
) -> None:
    facts = simulated(0, "under-fitting")
    setting = {
        "epochs": 8 if ended_by == "epochs" else 16,
        "minutes": 3.0 if ended_by == "minutes" else None,
        "early_stopping": 3 if ended_by == "early stopping" else None,
    }
    recipe = dict(facts.recipe) | {"training": facts.recipe["training"] | setting}
    steps = Steps(*(column[:200] for column in vars(facts.steps).values()))
    remedy = told(replace(facts, recipe=recipe, ended_by=ended_by, steps=steps, probes=()))["under-fitting"]
    assert wanted in remedy
    assert contradicts not in remedy


def test_a_model_that_a_low_rate_kept_from_learning_is_not_advised_to_train_for_longer() -> None:
    remedies = told(simulated(1, "learning-rate-too-low"))
    assert remedies["learning-rate-too-low"] in remedies["under-fitting"]
    assert "training.epochs" not in remedies["under-fitting"]


def test_one_step_is_one_step() -> None:
    facts = simulated(0, "under-fitting")
    steps = Steps(*(column[:1] for column in vars(facts.steps).values()))
    (evidence,) = (one.evidence for one in find(replace(facts, steps=steps, probes=())) if one.name == "under-fitting")
    assert "of 1 step the loss" in evidence


@pytest.mark.slow
def test_an_under_fitted_model_disputes_no_label() -> None:
    """Its predictions are known to be wrong; nothing follows from them about labels."""
    accused = [seed for seed in range(8) if "disputed-labels" in told(simulated(seed, "under-fitting"))]
    assert accused == []
