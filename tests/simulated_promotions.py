"""Pairs of models whose true quality is known, on images that differ, for the decisions of the gate.

Two classes, 8 to 39 cells an image, balanced accuracy. Images differ in difficulty, and the errors of two models are
correlated per cell (a Gaussian copula), as those of two training runs of one recipe are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr

from cytoray_analysis.tasks import get_task
from cytoray_services.promotion.resampling import Comparison, compare_units
from cytoray_services.statistics.counts import Score, unit_scores

Answered = tuple[Sequence[object], Sequence[object]]

CORRELATION = 0.8
DIFFICULTY = (1.7, 0.8)  # mean and standard deviation over images, logits
TASK = get_task("classification", {"classes": ["a", "b"], "counts": [1, 1]})
_MANY = np.random.default_rng(9).normal(*DIFFICULTY, 200_000)

Answers = list[NDArray[np.float64]]


def quality(shift: float) -> float:
    """Return the true score of a model whose logits lie `shift` above the usual."""
    return float(expit(_MANY + shift).mean())


def shift_for(delta: float) -> float:
    """Return the shift of a model that is truly `delta` better than the usual."""
    low, high = -5.0, 5.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if quality(middle) < quality(0) + delta else (low, middle)
    return low


@dataclass(frozen=True)
class Images:
    """Images with cells of known class and difficulty; `base` is what all models share in each cell."""

    owner: NDArray[np.int64]
    rate: NDArray[np.float64]
    base: NDArray[np.float64]
    truth: NDArray[np.int64]
    count: int

    @property
    def truths(self) -> list[NDArray[np.int64]]:
        """(cells,) classes, image by image."""
        return np.split(self.truth, self._cuts)

    @property
    def _cuts(self) -> NDArray[np.int64]:
        return np.cumsum(np.bincount(self.owner, minlength=self.count))[:-1]

    def right(self, random: np.random.Generator, shift: NDArray[np.float64] | float = 0.0) -> NDArray[np.bool_]:
        """Draw which cells a model of that quality gets right."""
        own = random.normal(size=len(self.base))
        noise = CORRELATION * self.base + np.sqrt(1 - CORRELATION**2) * own
        return np.asarray(ndtr(noise) < expit(self.rate + shift))

    def answers(self, right: NDArray[np.bool_]) -> Answers:
        """Return the probabilities of a model that gets these cells right, image by image."""
        return np.split(np.eye(2)[np.where(right, self.truth, 1 - self.truth)], self._cuts)


def draw_images(random: np.random.Generator, count: int) -> Images:
    """Draw images."""
    cells = random.integers(8, 40, count)
    owner = np.repeat(np.arange(count), cells)
    rate = random.normal(*DIFFICULTY, count)[owner]
    return Images(owner, rate, random.normal(size=len(owner)), random.integers(0, 2, len(owner)), count)


def parts_of(
    images: Images, groups: NDArray[np.int64], answers: Answers
) -> Iterator[tuple[Answers, list[NDArray[np.int64]]]]:
    """Yield the answers and truths of each group of images."""
    truths = images.truths
    for group in np.unique(groups):
        chosen = np.flatnonzero(groups == group).tolist()
        yield [answers[index] for index in chosen], [truths[index] for index in chosen]


def compare(
    metric: str, candidate: Answered, champion: Answered, groups: Sequence[object], score: Score, *, resamples: int
) -> Comparison:
    """Compare two models of which answers and truths are known, image by image."""
    counted = [unit_scores(*answered, groups, score, [metric]) for answered in (candidate, champion)]
    return compare_units(metric, counted[0], counted[1], len(groups), resamples=resamples)
