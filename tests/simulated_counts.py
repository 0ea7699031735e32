"""Counts of models whose true quality is known, image by image, for the decisions of the gate; nothing is drawn.

Images differ in difficulty, which all models share; of a tenth nothing can be counted. What a model does better or
worse on an image has heavy tails (Student's t of three degrees of freedom), and half of the objects and cells fare
alike with all models, as with several training runs of one recipe.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from cytoray_services.statistics.counts import UnitScores, Weighted, ratio_of

Numbers = NDArray[np.float64]
Models = list[UnitScores]

_OWN = 0.35  # logits by which a model differs on an image
_CLASSES = (0.6, 0.3, 0.1)  # shares; the last is missing in many images


def objects(random: np.random.Generator, images: int, shifts: Numbers) -> Models:
    """Draw AP = TP / (TP + FP + FN): counts of all images together, 25 objects an image, some have hundreds."""
    there = random.negative_binomial(1.2, 1.2 / (1.2 + 25), images) * (random.random(images) > 0.1)
    difficulty = random.normal(1.2, 0.9, images)
    alike = random.binomial(there, 0.5)
    found, invented = random.binomial(alike, expit(difficulty)), random.poisson(0.1 * there * expit(-difficulty))
    models = []
    for shift in shifts:
        own = shift + _OWN * random.standard_t(3, images)
        hits = found + random.binomial(there - alike, expit(difficulty + own))
        false = invented + random.poisson(0.1 * there * expit(-difficulty - own) + 0.2)
        models.append(_model("ap50", ratio_of(hits.astype(float), (there + false).astype(float))))
    return models


def means(random: np.random.Generator, images: int, shifts: Numbers) -> Models:
    """Draw a correlation that is a mean over images."""
    known = (random.random(images) > 0.1).astype(float)
    difficulty = random.normal(0.8, 0.1, images)
    return [
        _model("pearson", ratio_of(known * (difficulty + shift + 0.03 * random.standard_t(3, images)), known))
        for shift in shifts
    ]


def classes(random: np.random.Generator, images: int, shifts: Numbers) -> Models:
    """Draw balanced accuracy over three classes of cells, one of them rare and hard, 8 to 39 cells an image."""
    cells = random.integers(8, 40, images) * (random.random(images) > 0.1)
    there = random.multinomial(cells, random.dirichlet(3 * np.array(_CLASSES), images))
    difficulty = random.normal(1.7, 0.8, (images, 1)) + np.array([0.5, 0.0, -0.5])
    alike = random.binomial(there, 0.5)
    right = random.binomial(alike, expit(difficulty))
    models = []
    for shift in shifts:
        own = shift + _OWN * random.standard_t(3, (images, 1))
        hits = right + random.binomial(there - alike, expit(difficulty + own))
        models.append(_model("balanced_accuracy", Weighted(np.hstack([hits, there]).astype(float), _recall)))
    return models


def _recall(sums: Numbers) -> Numbers:
    hits, there = np.split(sums, 2, axis=1)
    shares = np.where(there > 0, hits / np.maximum(there, 1), 0.0)
    return np.asarray(shares.sum(axis=1) / np.maximum((there > 0).sum(axis=1), 1))


def _model(metric: str, score: Weighted) -> UnitScores:
    whole = {metric: float(score(np.ones((1, len(score.counts))))[0])}
    return UnitScores(whole, len(score.counts), frozenset(whole), {metric: score})


KINDS: dict[str, Callable[[np.random.Generator, int, Numbers], Models]] = {
    "objects": objects,
    "means": means,
    "classes": classes,
}


def shift_for(kind: str, delta: float) -> float:
    """Return the shift of a model that is truly `delta` better than one of 0."""

    def gain(shift: float) -> float:
        old, new = KINDS[kind](np.random.default_rng(9), 100_000, np.array([0.0, shift]))
        return sum(new.whole.values()) - sum(old.whole.values())

    low, high = 0.0, 5.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if gain(middle) < delta else (low, middle)
    return low
