"""Classes, splits and labels."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from scipy.stats import fisher_exact, mannwhitneyu, norm, poisson, t

from cytoray_analysis.plural import counted
from cytoray_services.datasets.check.classes import NOTED_IMBALANCE
from cytoray_services.statistics.counts import members_of
from cytoray_training.diagnosis.facts import Cells, Ending, Facts
from cytoray_training.diagnosis.findings.finding import Finding
from cytoray_training.diagnosis.findings.fitting import well_fitted
from cytoray_training.diagnosis.findings.intervals import owners

_CHANCE = 0.001
_EFFECT = 0.6  # Cliff's delta; from 0.474 on an effect counts as large (Romano et al. 2006)
_LOST_RECALL = 0.2
_TRUSTED = 0.8  # minimum mean recall of a model whose disputes count
_MISSED = 2  # a good model misses one object among hundreds
_SELDOM = 1e-4
_CERTAIN = 1e-5  # recorded probabilities are at least this far from 0 and 1
_MOST_DISPUTED = 0.2  # share of labels; a model that disputes more is itself wrong
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
    """Report when a class that is rare in training is recognised worse than the common ones.

    Fisher's exact test over cells; and a test over units, because cells of one image are similar: how much the
    difference of two ratios varies between units (Cochran, Sampling Techniques, 1977, chapter 6). The larger p counts.
    """
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
    chance = max(
        float(fisher_exact(table, alternative="greater").pvalue),
        _chance_of_units(right, of_rare, members_of(owners(ending, "val"))),
    )
    if recalls[0] - recalls[1] < _LOST_RECALL or chance > 0.01:
        return None
    named = ", ".join(
        f"{ending.classes[number]} ({int(counts[number])} in training)" for number in np.flatnonzero(rare)[:5]
    )
    evidence = (
        f"rare classes are found in {recalls[1]:.0%} of {counted(sum(table[1]), 'validation cell')}, the others in "
        f"{recalls[0]:.0%} of {sum(table[0])} (by chance with p = {chance:.1g}); rare: {named}; "
        f"the largest class has {int(counts.max())}"
    )
    remedy = (
        f"data.balance: 1.0 (now {facts.setting('data.balance'):g}), which samples every class equally often; or "
        "model.task.arguments.class_weights: balanced, not both; and label more cells of the rare classes"
    )
    return Finding("class-imbalance", "warning", evidence, remedy)


def _chance_of_units(right: NDArray[np.bool_], of_rare: NDArray[np.bool_], members: NDArray[np.int64]) -> float:
    """Return the probability of such a difference between common and rare classes, given the variation of units."""
    units = int(members.max()) + 1
    if units < 2:
        return 1.0
    residuals, gap = np.zeros(units), 0.0
    for of_kind, sign in ((~of_rare, 1.0), (of_rare, -1.0)):
        recall = float(right[of_kind].mean())
        gap += sign * recall
        off = (right[of_kind] - recall) / of_kind.sum()
        residuals += sign * np.bincount(members[of_kind], weights=off, minlength=units)
    spread = math.sqrt(units / (units - 1) * float((residuals**2).sum()))
    return float(t.sf(gap / spread, units - 1)) if spread > 0 else 0.0


def different_splits(facts: Facts) -> Finding | None:
    """Report when training and validation images differ in simple features by more than chance.

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
        "draw the splits again so that both contain images of every source (the manifest's column split, or data.folds "
        "with data.group), unless the difference is intended; in that case, label some images like those of val for "
        "training"
    )
    return Finding("different-splits", "warning", "medians per image: " + "; ".join(differing), remedy)


def same_content(facts: Facts) -> Finding | None:
    """Report when validation images repeat training images."""
    if facts.ending is None or not facts.ending.twins:
        return None
    twins = facts.ending.twins
    pairs = ", ".join(f"{twin.val} repeats {twin.train} ({twin.similarity:.3f})" for twin in twins[:5])
    count = facts.images.get("val", len(twins))
    evidence = (
        f"{len(twins)} of {counted(count, 'validation image')} have the fine structure of a training image, except for "
        f"brightness, rotation and mirroring (correlation): {pairs}"
    )
    remedy = (
        "remove those images from one of the splits (the manifest's column split), keep all images of one field, "
        "mosaic, well or patient in one split, and train again: the score is too high"
    )
    return Finding("same-content", "error", evidence, remedy)


def disputed_labels(facts: Facts) -> Finding | None:
    """Report labels that a good model contradicts with confidence; a bad model is not consulted."""
    ending = facts.ending
    if ending is None or not ending.disputes or not well_fitted(facts) or not _trusted(ending):
        return None
    disputes = ending.disputes
    if len(disputes) > _MOST_DISPUTED * max(ending.judged, 1) or _are_its_own_errors(ending):
        return None
    if all(one.proposed == "nothing" for one in disputes) and len(disputes) < _MISSED:
        return None
    named = "; ".join(
        f"{one.file} at {', '.join(f'{part:.0f}' for part in one.place)}: label {one.given}, model {one.proposed} "
        f"({one.confidence:.2f})"
        for one in disputes[:5]
    )
    more = f"; {len(disputes) - 5} more in facts.json" if len(disputes) > 5 else ""
    evidence = f"{len(disputes)} of {counted(ending.judged, 'label')} are disputed by the model: {named}{more}"
    remedy = "check the pictured labels, correct those that are wrong, and train again; leave correct labels unchanged"
    return Finding("disputed-labels", "note", evidence, remedy)


def _trusted(ending: Ending) -> bool:
    """Return whether a classifier recognises its classes, including rare ones; otherwise its disputes are noise."""
    truth = np.array([one for cells in ending.cells.values() for one in cells.truth])
    predicted = np.array([one for cells in ending.cells.values() for one in cells.predicted])
    recalls = [float((predicted[truth == number] == number).mean()) for number in np.unique(truth)]
    return not recalls or float(np.mean(recalls)) >= _TRUSTED


def _are_its_own_errors(ending: Ending) -> bool:
    """Return whether a classifier would contradict as many labels even if all were correct.

    A classifier that is correct in 95 % of cells is also confident in some of its errors. The evidence for the labels,
    in log-odds, is assumed to be normal; its lower side is as wide as from the median to the tenth percentile, which a
    few wrong labels do not move. Wrong labels are below the expected values (Poisson test of their number).
    """
    given = np.array([one for cells in ending.cells.values() for one in cells.probability_of_truth])
    if not len(given):
        return False
    log_odds = logit(np.clip(given, _CERTAIN, 1 - _CERTAIN))
    tenth, middle = np.quantile(log_odds, (0.1, 0.5))
    width = (middle - tenth) / -norm.ppf(0.1)
    least = logit(np.clip(1 - min(one.confidence for one in ending.disputes), _CERTAIN, 1 - _CERTAIN))
    expected = len(given) * float(norm.cdf((least - middle) / max(width, _CERTAIN)))
    return float(poisson.sf(len(ending.disputes) - 1, expected)) > _SELDOM
