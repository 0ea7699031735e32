"""Findings from the facts of a training run: one small pure function each."""

from __future__ import annotations

from collections.abc import Callable

from cytoray_training.diagnosis.facts import Facts
from cytoray_training.diagnosis.findings.activity import dead_layers, exploding_layers
from cytoray_training.diagnosis.findings.certainty import agreement_reached, too_few_examples
from cytoray_training.diagnosis.findings.data import class_imbalance, different_splits, disputed_labels, same_content
from cytoray_training.diagnosis.findings.finding import Finding, Severity
from cytoray_training.diagnosis.findings.fitting import over_fitting, under_fitting
from cytoray_training.diagnosis.findings.learning import (
    diverging,
    few_crops_per_norm,
    numbers_lost,
    rate_too_high,
    rate_too_low,
)
from cytoray_training.diagnosis.findings.machine import waiting_for_data
from cytoray_training.diagnosis.findings.scoring import no_score

FINDINGS: tuple[Callable[[Facts], Finding | None], ...] = (
    numbers_lost,
    diverging,
    no_score,
    same_content,
    rate_too_high,
    rate_too_low,
    few_crops_per_norm,
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
    """Return all findings, errors first."""
    seen = [finding for look in FINDINGS if (finding := look(facts)) is not None]
    return tuple(sorted(seen, key=lambda finding: _ORDER[finding.severity]))


__all__ = ["FINDINGS", "Finding", "Severity", "find"]
