"""Classes, splits and labels."""

from __future__ import annotations

import numpy as np
from scipy.stats import fisher_exact, mannwhitneyu

from cytoray_services.datasets.check.classes import NOTED_IMBALANCE
from cytoray_training.diagnosis.facts import Cells, Facts
from cytoray_training.diagnosis.findings.finding import Finding

_CHANCE = 0.001
_EFFECT = 0.6  # Cliff's delta; from 0.474 on an effect counts as large (Romano et al. 2006)
_LOST_RECALL = 0.2
_WORDS = {
    "mean": "mean intensity",
    "contrast": "contrast",
    "background": "background",
    "sharpness": "sharpness",
    "shape": "coarse structure",
    "objects": "objects per area",
    "size": "object size",
}


def class_imbalance(facts: Facts) -> Finding | None:
    """Tell when a class that is rare in training is recognised worse than the common ones (Fisher's exact test)."""
    ending = facts.ending
    if ending is None or not ending.classes:
        return None
    counts = np.array(ending.counts.get("train", ()), dtype=float)
    cells = ending.cells.get("val", Cells())
    if not len(counts) or not cells.truth:
        return None
    truth, predicted = np.array(cells.truth), np.array(cells.predicted)
    rare = counts * NOTED_IMBALANCE <= counts.max()
    of_rare, right = rare[truth], truth == predicted
    if not of_rare.any() or of_rare.all():
        return None
    table = [
        [int((right & ~of_rare).sum()), int((~right & ~of_rare).sum())],
        [int((right & of_rare).sum()), int((~right & of_rare).sum())],
    ]
    recalls = [row[0] / max(sum(row), 1) for row in table]
    chance = float(fisher_exact(table, alternative="greater").pvalue)
    if recalls[0] - recalls[1] < _LOST_RECALL or chance > 0.01:
        return None
    named = ", ".join(
        f"{ending.classes[number]} ({int(counts[number])} in training)" for number in np.flatnonzero(rare)[:5]
    )
    evidence = (
        f"rare classes are found in {recalls[1]:.0%} of {sum(table[1])} validation cells, the others in "
        f"{recalls[0]:.0%} of {sum(table[0])} (by chance with p = {chance:.1g}); rare: {named}; "
        f"the largest class has {int(counts.max())}"
    )
    remedy = (
        f"data.balance: 1.0 (now {facts.setting('data.balance'):g}), which draws every class equally often; or "
        "model.task.arguments.class_weights: balanced, not both; and label more of the rare ones"
    )
    return Finding("class-imbalance", "warning", evidence, remedy)


def different_splits(facts: Facts) -> Finding | None:
    """Tell when training and validation images differ in plain features by more than chance.

    Mann-Whitney's test for each feature, corrected for their number (Holm, Scand. J. Stat. 6, 65 (1979)), with Cliff's
    delta as effect size.
    """
    if facts.ending is None:
        return None
    train, val = (facts.ending.features.get(split, {}) for split in ("train", "val"))
    tested = []
    for name in train.keys() & val.keys():
        one, other = np.array(train[name]), np.array(val[name])
        if min(len(one), len(other)) < 4 or (np.ptp(np.concatenate((one, other))) == 0):
            continue
        result = mannwhitneyu(one, other)
        delta = 2 * float(result.statistic) / (len(one) * len(other)) - 1
        tested.append((float(result.pvalue), name, delta, float(np.median(one)), float(np.median(other))))
    differing = []
    for place, (chance, name, delta, one_middle, other_middle) in enumerate(sorted(tested)):
        if chance * (len(tested) - place) > _CHANCE:
            break
        if abs(delta) >= _EFFECT:
            differing.append(
                f"{_WORDS[name]}: {one_middle:.3g} in train, {other_middle:.3g} in val "
                f"(Cliff's delta {delta:+.2f}, p = {chance:.1g})"
            )
    if not differing:
        return None
    remedy = (
        "draw the splits anew so that both hold images of every source (the manifest's column split, or data.folds "
        "with data.group), unless the difference is what is to be tested; then label some images like those of val "
        "for training"
    )
    return Finding("different-splits", "warning", "medians per image: " + "; ".join(differing), remedy)


def same_content(facts: Facts) -> Finding | None:
    """Tell when validation images repeat training images."""
    if facts.ending is None or not facts.ending.twins:
        return None
    twins = facts.ending.twins
    pairs = ", ".join(f"{twin.val} repeats {twin.train} ({twin.similarity:.3f})" for twin in twins[:5])
    count = facts.images.get("val", len(twins))
    evidence = (
        f"{len(twins)} of {count} validation images have the fine structure of a training image, up to brightness, "
        f"turning and mirroring (correlation): {pairs}"
    )
    remedy = (
        "take those images out of one of the splits (the manifest's column split), keep what comes from one field, "
        "mosaic, well or patient in one split, and train again: the score is too good"
    )
    return Finding("same-content", "error", evidence, remedy)


def disputed_labels(facts: Facts) -> Finding | None:
    """Tell of labels that the model contradicts with confidence."""
    if facts.ending is None or not facts.ending.disputes:
        return None
    disputes = facts.ending.disputes
    named = "; ".join(
        f"{one.file} at {', '.join(f'{part:.0f}' for part in one.place)}: label {one.given}, model {one.proposed} "
        f"({one.confidence:.2f})"
        for one in disputes[:5]
    )
    more = f"; {len(disputes) - 5} more in facts.json" if len(disputes) > 5 else ""
    evidence = f"{len(disputes)} of {facts.ending.judged} labels that were looked at are disputed: {named}{more}"
    remedy = "look at the pictured labels, mend those that are wrong, and train again; what is right stays as it is"
    return Finding("disputed-labels", "note", evidence, remedy)
