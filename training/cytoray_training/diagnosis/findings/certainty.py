"""Whether the validation score is informative: compared with annotators, and given its number of images."""

from __future__ import annotations

from cytoray_analysis.plural import counted
from cytoray_analysis.tasks.metrics import metric_named
from cytoray_services.statistics import FEW
from cytoray_services.statistics.intervals import few_units
from cytoray_training.diagnosis.facts import Facts
from cytoray_training.diagnosis.findings.finding import Finding
from cytoray_training.diagnosis.findings.intervals import of_split, score_interval, unit_count

_AS_GOOD = 0.01


def agreement_reached(facts: Facts) -> Finding | None:
    """Report when the score has reached the agreement of annotators."""
    if facts.ending is None or facts.agreement is None or not facts.validations:
        return None
    metric = metric_named(facts.metric)
    score = max((one.score for one in facts.validations), key=metric.goodness)
    if metric.gain(score, facts.agreement) < -_AS_GOOD:
        return None
    interval = score_interval(facts.ending)
    between = "" if interval is None else f" (95 % interval {interval[0]:.3f} to {interval[1]:.3f})"
    evidence = f"{facts.metric} is {score:.3f}{between}; annotators reach {facts.agreement:.3f} against each other"
    remedy = (
        "more training cannot improve this score: let several people annotate a part of the validation images and "
        "agree on the labels, or measure the model in its application"
    )
    return Finding("annotator-agreement", "note", evidence, remedy)


def too_few_examples(facts: Facts, widest: float = 0.15) -> Finding | None:
    """Report when the score is based on fewer than six units, or its 95 % interval is wider than `widest`.

    For scores without the maximum 1, such as decibels, the width is relative to the score.
    """
    if facts.ending is None or not of_split(facts.ending.images, "val"):
        return None
    units, unit = unit_count(facts.ending), facts.ending.unit
    interval = score_interval(facts.ending)
    few = few_units(units, unit)
    width = 0.0 if interval is None else interval[1] - interval[0]
    if interval is not None and not metric_named(facts.ending.metric).bounded:
        width /= max(abs(sum(interval)) / 2, 1e-12)
    if few is None and width <= widest:
        return None
    between = (
        ""
        if interval is None
        else f"{facts.metric} is between {interval[0]:.3f} and {interval[1]:.3f} (95 %, bootstrap over "
        f"{counted(units, f'validation {unit}')}): {width:.3f} wide"
    )
    evidence = "; ".join(part for part in (between, few) if part) + (f", more than {widest:g}" if few is None else "")
    wanted = max(units + 1, FEW, round((width / widest) ** 2 * units))
    remedy = (
        f"label about {counted(wanted, f'validation {unit}')} instead of {units}, "
        "or use every image for validation once with data.folds: 5; until then, a difference between two models that "
        "is smaller than the interval is not evidence"
    )
    return Finding("too-few-examples", "note" if few is None else "warning", evidence, remedy)
