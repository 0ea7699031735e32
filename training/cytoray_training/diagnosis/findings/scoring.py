"""Whether validations had a score for the weights."""

from __future__ import annotations

from cytoray_training.diagnosis.facts import Facts, Unscored
from cytoray_training.diagnosis.findings.finding import Finding, Severity

_NAMES = {"missing": "missing", "nan": "not a number (NaN)"}
_WHY = {
    "missing": "the task omits it if it is undefined, such as a precision without any predicted object",
    "nan": "it is undefined for these answers and truths, such as an object score without objects",
}


def no_score(facts: Facts) -> Finding | None:
    """Report when validations had no score that can choose the weights."""
    if not facts.unscored:
        return None
    unscored, every = len(facts.unscored), len(facts.unscored) + len(facts.validations)
    evidence = f"in {unscored} of {every} validations {_described(facts.unscored[0], facts.metric)}"
    severity: Severity = "error" if unscored == every else "warning"
    return Finding("no-score", severity, evidence, _remedy(facts.unscored[-1], facts.metric))


def missing_score(one: Unscored, metric: str) -> str:
    """Return the warning during a training run: which score is missing, why, and what to do."""
    return (
        f"validation after epoch {one.epoch + 1}: {_described(one, metric)}. The weights of such an epoch are never "
        f"chosen, and without chosen weights there is no model. If this continues, {_remedy(one, metric)}"
    )


def _described(one: Unscored, metric: str) -> str:
    return f"the score {metric}, which chooses the weights, was {_NAMES[one.why]}: {_WHY[one.why]}"


def _remedy(one: Unscored, metric: str) -> str:
    numbers = [name for name in one.numbers if name != metric and "/" not in name]
    other = f", or set training.metric to a score with a value: {', '.join(numbers)}" if numbers else ""
    return f"check the truths of the validation images (cytoray data check){other}"
