"""Whether validation could tell how good the weights were."""

from __future__ import annotations

from cytoray_training.diagnosis.facts import Facts, Unscored
from cytoray_training.diagnosis.findings.finding import Finding, Severity

_NAMES = {"missing": "missing", "nan": "no number (NaN)"}
_WHY = {
    "missing": "the task leaves it out where it is not defined, such as a precision where nothing was found",
    "nan": "it is not defined for these answers and truths, such as a score of objects where there are none",
}


def no_score(facts: Facts) -> Finding | None:
    """Tell when validations had no score to choose weights by."""
    if not facts.unscored:
        return None
    unscored, every = len(facts.unscored), len(facts.unscored) + len(facts.validations)
    evidence = f"in {unscored} of {every} validations {_described(facts.unscored[0], facts.metric)}"
    severity: Severity = "error" if unscored == every else "warning"
    return Finding("no-score", severity, evidence, _remedy(facts.unscored[-1], facts.metric))


def missing_score(one: Unscored, metric: str) -> str:
    """Return what to say while a training goes on: which score is missing, why, and what to do."""
    return (
        f"validation after epoch {one.epoch + 1}: {_described(one, metric)}. Weights of such an epoch are never the "
        f"best, and without best weights there is no model. If it stays so, {_remedy(one, metric)}"
    )


def _described(one: Unscored, metric: str) -> str:
    return f"the score {metric}, which chooses the weights, was {_NAMES[one.why]}: {_WHY[one.why]}"


def _remedy(one: Unscored, metric: str) -> str:
    numbers = [name for name in one.numbers if name != metric and "/" not in name]
    other = f", or set training.metric to one that is a number: {', '.join(numbers)}" if numbers else ""
    return f"check the truths of the validation images (cytoray data check){other}"
