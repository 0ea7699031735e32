"""Whether the model fits its training images, and whether it generalises."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import fisher_exact, t

from cytoray_analysis.plural import counted
from cytoray_analysis.tasks.metrics import metric_named
from cytoray_training.diagnosis.facts import Ending, Facts
from cytoray_training.diagnosis.findings.activity import dead_layers, exploding_layers
from cytoray_training.diagnosis.findings.finding import Finding
from cytoray_training.diagnosis.findings.intervals import of_split, unit_means
from cytoray_training.diagnosis.findings.learning import diverging, rate_too_high, rate_too_low

Numbers = NDArray[np.float64]

_GAP = 0.1
_CHANCE = 0.001
_UNFITTED = 0.6  # of 1, or of the agreement of annotators
_UNFITTED_BY = {"msa": 0.4}  # its mean goes up to an IoU of 0.95: about what 0.6 is for ap50
_STILL_FALLING = 0.1
_FEW_STEPS = 300  # with fewer steps, the falling learning rate ends the descent
_FASTER = (diverging, rate_too_high, rate_too_low, exploding_layers, dead_layers)  # what prevents learning


def over_fitting(facts: Facts) -> Finding | None:
    """Report when training images score better than validation images by more than chance.

    Welch's test over units (images, movies, groups), because members of a unit are similar; Fisher's exact test over
    cells if each unit is a single cell.
    """
    ending = facts.ending
    if ending is None:
        return None
    (known, of_known), (new, of_new) = (unit_means(ending, split) for split in ("train", "val"))
    if len(known) < 2 or len(new) < 4:
        return None
    gap = _gap(ending, known, new)
    if gap < _GAP * _scale(ending, new):
        return None
    single = bool(ending.cells) and of_known.max() == of_new.max() == 1
    chance = _chance_of_more_cells(known, new) if single else _chance_of_more(ending, known, new)
    if chance > _CHANCE:
        return None
    what = "share of correct cells" if ending.cells else facts.metric
    unit = "cell" if single else ending.unit
    evidence = (
        f"{what}: {known.mean():.3f} over {counted(len(known), unit)} in training and {new.mean():.3f} over "
        f"{counted(len(new), unit)} in validation, {gap:.3f} worse (by chance with p = {chance:.1g}){_fallen(facts)}"
    )
    count = facts.images.get("train", len(known))
    remedy = (
        f"label more than the {counted(count, 'training image')}; until then, use more augmentation "
        f"(augmentation.rotation, augmentation.zoom, augmentation.gamma), raise training.weight_decay above "
        f"{facts.setting('training.weight_decay'):g}, or make model.network.arguments.widths smaller"
    )
    return Finding("over-fitting", "warning", evidence, remedy)


def _gap(ending: Ending, known: Numbers, new: Numbers) -> float:
    """Return the mean advantage of `known` over `new`."""
    return float(_goodness(ending, known).mean() - _goodness(ending, new).mean())


def _goodness(ending: Ending, values: Numbers) -> Numbers:
    if ending.cells:
        return values
    return np.array([metric_named(ending.metric).goodness(float(value)) for value in values])


def _scale(ending: Ending, values: Numbers) -> float:
    """Return 1 for scores with the maximum 1, else the magnitude of the values: 0.1 dB is negligible."""
    return 1.0 if ending.cells or metric_named(ending.metric).bounded else float(np.abs(values).mean())


def _chance_of_more(ending: Ending, known: Numbers, new: Numbers) -> float:
    """Return the probability that `known` is better than `new` by this much by chance (Welch's test)."""
    errors = [float(_goodness(ending, values).var(ddof=1)) / len(values) for values in (known, new)]
    if sum(errors) == 0:
        return 0.0
    freedom = sum(errors) ** 2 / sum(
        error**2 / (len(values) - 1) for error, values in zip(errors, (known, new), strict=True)
    )
    return float(t.sf(_gap(ending, known, new) / math.sqrt(sum(errors)), freedom))


def _chance_of_more_cells(known: Numbers, new: Numbers) -> float:
    table = [[int(values.sum()), len(values) - int(values.sum())] for values in (known, new)]
    return float(fisher_exact(table, alternative="greater").pvalue)


def _fallen(facts: Facts) -> str:
    scores = [metric_named(facts.metric).goodness(one.score) for one in facts.validations]
    if len(scores) < 3 or max(scores) - scores[-1] < 0.02:
        return ""
    best = int(np.argmax(scores))
    return (
        f"; the validation score went from {facts.validations[best].score:.3f} in epoch "
        f"{facts.validations[best].epoch + 1} to {facts.validations[-1].score:.3f} at the end"
    )


def well_fitted(facts: Facts) -> bool:
    """Return whether the model answers its training images well enough to be trusted.

    Scores without a common scale, such as decibels, cannot show this.
    """
    ending = facts.ending
    if ending is None:
        return False
    known = [one.score for one in of_split(ending.images, "train")]
    metric = metric_named(ending.metric)
    if not known or not metric.bounded or metric.better != "higher":
        return True
    return float(np.mean(known)) >= _enough(facts)


def _enough(facts: Facts) -> float:
    if facts.agreement is not None:
        return _UNFITTED * facts.agreement
    return _UNFITTED_BY.get(facts.metric, _UNFITTED)


def under_fitting(facts: Facts) -> Finding | None:
    """Report when the model does not answer even its training images well."""
    ending = facts.ending
    if ending is None or not facts.steps.loss or well_fitted(facts):
        return None
    known = np.array([one.score for one in of_split(ending.images, "train")])
    new = np.array([one.score for one in of_split(ending.images, "val")])
    if not len(new) or known.mean() - new.mean() >= _GAP:
        return None
    falling = _falling(np.array(facts.steps.loss))
    moved = f"fell by {falling:.0%}" if falling >= 0 else f"rose by {-falling:.0%}"
    evidence = (
        f"{facts.metric} per image is {known.mean():.3f} even on {counted(len(known), 'training image')} (below "
        f"{_enough(facts):.2f}); over the last third of {counted(len(facts.steps.loss), 'step')} the loss {moved}"
    )
    return Finding("under-fitting", "warning", evidence, _more_learning(facts, falling))


def _falling(loss: Numbers) -> float:
    third = max(1, len(loss) // 3)
    before, after = loss[-2 * third : -third], loss[-third:]
    if not len(before) or not np.isfinite(loss).all():
        return 0.0
    return float(1 - after.mean() / max(before.mean(), 1e-12))


def _more_learning(facts: Facts, falling: float) -> str:
    """Return the remedy for what prevents learning, for what ended the training run, or for the size of the network."""
    first = next((found for look in _FASTER if (found := look(facts)) is not None), None)
    if first is not None:
        return f"correct {first.name} first, which may be the only cause: {first.remedy}"
    if falling > _STILL_FALLING or len(facts.steps.loss) < _FEW_STEPS:
        return longer(facts)
    return (
        "use a larger network: model.network.arguments.widths with more or wider levels; then check that crops with "
        "this data.pixel_size and training.crop_size contain whole objects"
    )


def longer(facts: Facts) -> str:
    """Return how to train for longer, given what ended the training run."""
    epochs, minutes = facts.setting("training.epochs"), facts.setting("training.minutes")
    patience = facts.setting("training.early_stopping")
    if facts.ended_by == "stop":
        return "let the training run finish: it was stopped; the same command continues from its checkpoint"
    if facts.ended_by == "minutes" and minutes is not None:
        done = facts.spent[-1].epoch + 1 if facts.spent else epochs
        enough = "" if 4 * done <= epochs else f", and training.epochs: {4 * done}"
        return (
            f"train for longer: training.minutes: {4 * minutes:g} (now {minutes:g}, which ended it in epoch {done} of "
            f"{epochs}){enough}; or use a faster machine"
        )
    if facts.ended_by == "early stopping" and patience is not None:
        return (
            f"stop later: training.early_stopping: {4 * patience} (now {patience}, which ended it after "
            f"{counted(patience, 'validation')} without improvement)"
        )
    more = "" if minutes is None else f" and training.minutes: {4 * minutes:g} (now {minutes:g})"
    return f"train for longer: training.epochs: {4 * epochs} (now {epochs}){more}"
