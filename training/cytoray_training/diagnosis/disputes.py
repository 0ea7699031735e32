"""Labels that a model contradicts with confidence: the most likely annotation errors.

Classes by confident learning (Northcutt et al., J. Artif. Intell. Res. 70, 1373 (2021), arXiv:1911.00068): a cell is
disputed when its probability for another class exceeds what the cells of that class get on average. Objects by size:
those of usual size that only the model or only the label contains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from cytoray_analysis.tasks.overlap import known_part
from cytoray_services.kinds.evaluated import ItemScore
from cytoray_training.diagnosis.facts import Dispute

_SURE = 0.9
_SELDOM_MISSES = 0.98  # of large objects that are labelled: a model that misses more of them is wrong itself
_LEAST_OF_LABEL = 0.1
_RIGHT_OTHERWISE = 0.8  # of the other cells of an image; an image where the model is often wrong is left out
_SHARED = 0.05  # share of an object that may lie in others and it still counts as missed, or invented


def disputed_classes(items: Sequence[ItemScore], split: str) -> list[Dispute]:
    """Find cells whose class the model contradicts."""
    if not items:
        return []
    names = items[0].prediction.answer.names
    probabilities = np.concatenate([item.prediction.answer.probabilities for item in items])
    truth = np.concatenate([item.labelled.truth for item in items])
    owner = np.repeat(np.arange(len(items)), [len(item.labelled.truth) for item in items])
    places = np.concatenate([item.prediction.answer.cells.centres for item in items])
    return [
        Dispute(
            str(items[owner[index]].image),
            split,
            given=names[truth[index]],
            proposed=names[int(probabilities[index].argmax())],
            confidence=float(probabilities[index].max()),
            place=tuple(float(part) for part in places[index]),
        )
        for index in contradicted_classes(probabilities, truth, owner)
    ]


def contradicted_classes(
    probabilities: NDArray[np.floating], truth: NDArray[np.integer], image: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Return the indices of cells whose class the model contradicts, in images where it is right about the others.

    Parameters
    ----------
    probabilities
        (N, K).
    truth
        (N,) classes as labelled, −1 unknown.
    image
        (N,) number of the image that contains each cell.
    """
    classes = range(probabilities.shape[1])
    usual = np.array([probabilities[truth == k, k].mean() if (truth == k).any() else 1.0 for k in classes])
    known = np.flatnonzero(truth >= 0)
    proposed = probabilities.argmax(axis=1)
    sure = probabilities.max(axis=1)
    right = np.where(truth >= 0, proposed == truth, False).astype(np.float64)
    others = np.bincount(image, weights=truth >= 0)[image] - 1
    of_others = np.where(others > 0, (np.bincount(image, weights=right)[image] - right) / np.maximum(others, 1), 1.0)
    disputed: NDArray[np.int64] = known[
        (proposed[known] != truth[known])
        & (sure[known] >= np.maximum(usual[proposed[known]], _SURE))
        & (probabilities[known, truth[known]] <= _LEAST_OF_LABEL)
        & (of_others[known] >= _RIGHT_OTHERWISE)
    ]
    return disputed


def disputed_objects(items: Sequence[ItemScore], split: str) -> list[Dispute]:
    """Find objects of usual size that only the model or only the label contains, if the task has confidences."""
    judged = [(item, item.prediction.confidence) for item in items if item.prediction.confidence is not None]
    # What lies where the truth is unknown contradicts nothing.
    known = [known_part(np.asarray(item.prediction.answer), np.asarray(item.labelled.truth)) for item, _ in judged]
    found = contradicted_objects(
        [answer for answer, _, _ in known],
        [truth for _, truth, _ in known],
        [confidence for _, confidence in judged],
    )
    return [
        Dispute(str(judged[one.image][0].image), split, one.given, one.proposed, one.confidence, one.place)
        for one in found
    ]


@dataclass(frozen=True)
class Contradiction:
    """An object that only the model or only the label contains; `image` is its index."""

    image: int
    given: str
    proposed: str
    confidence: float
    place: tuple[float, ...]


def contradicted_objects(
    answers: Sequence[NDArray[np.integer]],
    truths: Sequence[NDArray[np.integer]],
    confidences: Sequence[NDArray[np.floating]],
) -> list[Contradiction]:
    """Find the contradictions of :func:`disputed_objects`.

    Parameters
    ----------
    answers, truths
        Label images, one shape each, 0 background.
    confidences
        (n + 1,) of the objects of each answer, entry 0 meaning nothing.
    """
    sizes = [np.unique(truth[truth > 0], return_counts=True)[1] for truth in truths]
    if not sum(map(len, sizes)):
        return []
    usual = float(np.median(np.concatenate(sizes)))
    found, missed, misses = [], [], 0
    for image, (answer, truth, confidence) in enumerate(zip(answers, truths, confidences, strict=True)):
        found += [
            Contradiction(image, "nothing", "an object", float(confidence[number]), place)
            for number, place in _alone(answer, truth > 0, usual)
            if confidence[number] >= _SURE
        ]
        large = [place for _, place in _alone(truth, answer > 0, usual)]
        misses += len(large)
        # Where a model misses others as well, the image is difficult and is left out.
        if len(sizes[image]) > 1 and len(_alone(truth, answer > 0, 1.0)) == 1:
            missed += [(image, place) for place in large]
    # No model gives a confidence for background; the rate of missed objects replaces it.
    sure = 1.0 - misses / sum(int((one >= usual).sum()) for one in sizes)
    if sure >= _SELDOM_MISSES:
        found += [Contradiction(image, "an object", "nothing", sure, place) for image, place in missed]
    return found


def _alone(labels: NDArray[Any], others: NDArray[np.bool_], usual: float) -> list[tuple[int, tuple[float, ...]]]:
    """Return number and centre of objects of at least the usual size that nothing of the others covers."""
    alone = []
    for number, box in enumerate(find_objects(labels.astype(np.int32)), start=1):
        if box is None:
            continue
        inside = labels[box] == number
        size = int(inside.sum())
        if size >= usual and (inside & others[box]).sum() <= _SHARED * size:
            alone.append((number, tuple((part.start + part.stop) / 2 for part in box)))
    return alone
