"""Whether the model knows its training images, and whether that helps with others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import fisher_exact, ttest_ind

from cytoray_training.diagnosis.facts import Cells, Facts
from cytoray_training.diagnosis.findings.finding import Finding
from cytoray_training.diagnosis.findings.intervals import of_split, score_interval

_GAP = 0.1
_CHANCE = 0.001
_UNFITTED = 0.6  # of 1, or of what annotators agree on
_STILL_FALLING = 0.1
_FEW_STEPS = 300  # before them a falling learning rate ends the descent, not the network
_AS_GOOD = 0.01


def over_fitting(facts: Facts) -> Finding | None:
    """Tell when training images score better than validation images by more than chance.

    Welch's test over images; where there are classes, Fisher's exact test over cells.
    """
    if facts.ending is None:
        return None
    cells = facts.ending.cells
    what = "cells that are right" if cells else f"{facts.metric} of images"
    known, new = (
        _right(cells.get(split, Cells())) if cells else [one.score for one in of_split(facts.ending.images, split)]
        for split in ("train", "val")
    )
    if len(known) < 2 or len(new) < 4:
        return None
    gap = float(np.mean(known) - np.mean(new))
    chance = _chance_of_more(known, new, counted=bool(cells)) if gap >= _GAP else 1.0
    if chance > _CHANCE:
        return None
    evidence = (
        f"{what}: {np.mean(known):.3f} of {len(known)} in training and {np.mean(new):.3f} of {len(new)} in validation, "
        f"{gap:.3f} less (by chance with p = {chance:.1g}){_fallen(facts)}"
    )
    count = facts.images.get("train", len(known))
    remedy = (
        f"label more than the {count} training images; until then vary them more (augmentation.rotation, "
        f"augmentation.zoom, augmentation.gamma), raise training.weight_decay above "
        f"{facts.setting('training.weight_decay'):g}, or make model.network.arguments.widths smaller"
    )
    return Finding("over-fitting", "warning", evidence, remedy)


def _right(cells: Cells) -> list[float]:
    return [float(truth == predicted) for truth, predicted in zip(cells.truth, cells.predicted, strict=True)]


def _chance_of_more(known: Sequence[float], new: Sequence[float], *, counted: bool) -> float:
    """Return how probable it is that `known` is on average so much above `new` by chance."""
    if counted:
        table = [[sum(values), len(values) - sum(values)] for values in (known, new)]
        return float(fisher_exact(table, alternative="greater").pvalue)
    if np.ptp(known) + np.ptp(new) == 0:
        return 0.0
    return float(ttest_ind(known, new, equal_var=False, alternative="greater").pvalue)


def _fallen(facts: Facts) -> str:
    scores = [one.score for one in facts.validations]
    if len(scores) < 3 or max(scores) - scores[-1] < 0.02:
        return ""
    best = int(np.argmax(scores))
    return f"; the validation score fell from {scores[best]:.3f} in epoch {facts.validations[best].epoch + 1} to " + (
        f"{scores[-1]:.3f} at the end"
    )


def under_fitting(facts: Facts) -> Finding | None:
    """Tell when not even the training images are answered well."""
    if facts.ending is None or not facts.steps.loss:
        return None
    known = [one.score for one in of_split(facts.ending.images, "train")]
    new = [one.score for one in of_split(facts.ending.images, "val")]
    enough = _UNFITTED * (facts.agreement or 1.0)
    if not known or not new or np.mean(known) >= enough or np.mean(known) - np.mean(new) >= _GAP:
        return None
    falling = _falling(np.array(facts.steps.loss))
    evidence = (
        f"{facts.metric} per image is {np.mean(known):.3f} even on {len(known)} training images (below {enough:.2f}); "
        f"over the last third of {len(facts.steps.loss)} steps the loss fell by {falling:.0%}"
    )
    epochs = facts.setting("training.epochs")
    remedy = (
        f"train for longer: training.epochs: {4 * epochs} (now {epochs}), and training.minutes in proportion if set"
        if falling > _STILL_FALLING or len(facts.steps.loss) < _FEW_STEPS
        else "take a larger network: model.network.arguments.widths with more levels or wider ones; then check that "
        "data.pixel_size and training.crop_size show whole objects"
    )
    return Finding("under-fitting", "warning", evidence, remedy)


def _falling(loss: np.ndarray) -> float:
    third = max(1, len(loss) // 3)
    before, after = loss[-2 * third : -third], loss[-third:]
    if not len(before) or not np.isfinite(loss).all():
        return 0.0
    return float(1 - after.mean() / max(before.mean(), 1e-12))


def agreement_reached(facts: Facts) -> Finding | None:
    """Tell when the score has reached what annotators reach against each other."""
    if facts.ending is None or facts.agreement is None:
        return None
    score, interval = max((one.score for one in facts.validations), default=0.0), score_interval(facts.ending)
    if score < facts.agreement - _AS_GOOD:
        return None
    between = "" if interval is None else f" (95 % interval {interval[0]:.3f} to {interval[1]:.3f})"
    evidence = f"{facts.metric} is {score:.3f}{between}; annotators reach {facts.agreement:.3f} against each other"
    remedy = (
        "more training will not show in this score: have a part of the validation images annotated by several people "
        "and agreed on, or measure where the model is used"
    )
    return Finding("annotator-agreement", "note", evidence, remedy)


def too_few_examples(facts: Facts, widest: float = 0.15) -> Finding | None:
    """Tell when the 95 % interval of the validation score is wider than `widest`."""
    if facts.ending is None:
        return None
    images = of_split(facts.ending.images, "val")
    if not images:
        return None
    interval = score_interval(facts.ending)
    if interval is not None and interval[1] - interval[0] <= widest:
        return None
    if interval is None:
        evidence = f"{facts.metric} was measured on a single validation image, so that nothing is known of its spread"
        factor = 8.0
    else:
        width = interval[1] - interval[0]
        evidence = (
            f"{facts.metric} lies between {interval[0]:.3f} and {interval[1]:.3f} (95 %, bootstrap over "
            f"{len(images)} validation images): {width:.3f} wide, more than {widest:g}"
        )
        factor = (width / widest) ** 2
    remedy = (
        f"label about {max(len(images) + 1, round(factor * len(images)))} validation images instead of {len(images)}, "
        "or let every image be validated on once with data.folds: 5; until then a difference between two models that "
        "is smaller than the interval says nothing"
    )
    return Finding("too-few-examples", "note", evidence, remedy)
