"""What can be seen in the facts of a training: one small pure function each."""

from __future__ import annotations

from collections.abc import Callable

from cytoray_training.diagnosis.facts import Facts
from cytoray_training.diagnosis.findings.activity import dead_layers, exploding_layers
from cytoray_training.diagnosis.findings.data import class_imbalance, different_splits, disputed_labels, same_content
from cytoray_training.diagnosis.findings.finding import Finding, Severity
from cytoray_training.diagnosis.findings.fitting import (
    agreement_reached,
    over_fitting,
    too_few_examples,
    under_fitting,
)
from cytoray_training.diagnosis.findings.learning import diverging, numbers_lost, rate_too_high, rate_too_low
from cytoray_training.diagnosis.findings.machine import waiting_for_data

FINDINGS: tuple[Callable[[Facts], Finding | None], ...] = (
    numbers_lost,
    diverging,
    same_content,
    rate_too_high,
    rate_too_low,
    exploding_layers,
    dead_layers,
    over_fitting,
    under_fitting,
    different_splits,
    class_imbalance,
    disputed_labels,
    too_few_examples,
    agreement_reached,
    waiting_for_data,
)
_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}


def find(facts: Facts) -> tuple[Finding, ...]:
    """Return all that is seen, errors first."""
    seen = [finding for look in FINDINGS if (finding := look(facts)) is not None]
    return tuple(sorted(seen, key=lambda finding: _ORDER[finding.severity]))


__all__ = ["FINDINGS", "Finding", "Severity", "find"]
