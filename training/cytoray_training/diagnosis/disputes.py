"""Labels that a model contradicts with confidence: the likeliest errors of annotation.

Classes by confident learning (Northcutt et al., J. Artif. Intell. Res. 70, 1373 (2021), arXiv:1911.00068): a cell is
disputed when its probability for another class exceeds what the cells of that class get on average. Objects by size:
those that are as large as usual, and that model and label do not share at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from cytoray_services.evaluation import ItemScore
from cytoray_training.diagnosis.facts import Dispute

_SURE = 0.9
_LEAST_OF_LABEL = 0.1
_SHARED = 0.05  # share of an object that may lie in others and it is still missed, or invented


def disputed_classes(items: Sequence[ItemScore], split: str) -> list[Dispute]:
    """Find cells whose class the model contradicts."""
    if not items:
        return []
    names = items[0].prediction.answer.names
    probabilities = np.concatenate([item.prediction.answer.probabilities for item in items])
    truth = np.concatenate([item.labelled.truth for item in items])
    owner = np.repeat(np.arange(len(items)), [len(item.labelled.truth) for item in items])
    places = np.concatenate([item.prediction.answer.cells.centres for item in items])
    usual = np.array([probabilities[truth == k, k].mean() if (truth == k).any() else 1.0 for k in range(len(names))])
    known = np.flatnonzero(truth >= 0)
    proposed = probabilities.argmax(axis=1)
    sure = probabilities.max(axis=1)
    disputed = known[
        (proposed[known] != truth[known])
        & (sure[known] >= np.maximum(usual[proposed[known]], _SURE))
        & (probabilities[known, truth[known]] <= _LEAST_OF_LABEL)
    ]
    return [
        Dispute(
            str(items[owner[index]].image),
            split,
            given=names[truth[index]],
            proposed=names[proposed[index]],
            confidence=float(sure[index]),
            place=tuple(float(part) for part in places[index]),
        )
        for index in disputed
    ]


def disputed_objects(items: Sequence[ItemScore], split: str) -> list[Dispute]:
    """Find objects as large as usual that only the model sees, or only the label, where it says how sure it is."""
    items = [item for item in items if item.prediction.confidence is not None]
    truths = [np.asarray(item.labelled.truth) for item in items]
    if not truths:
        return []
    sizes = np.concatenate([np.unique(truth[truth > 0], return_counts=True)[1] for truth in truths])
    if not len(sizes):
        return []
    usual = float(np.median(sizes))
    found = []
    large = 0
    missed: list[tuple[ItemScore, tuple[float, ...]]] = []
    for item, truth in zip(items, truths, strict=True):
        answer = np.asarray(item.prediction.answer)
        confidence = item.prediction.confidence
        for number, place in _alone(answer, truth > 0, usual):
            if confidence is not None and confidence[number] >= _SURE:
                found.append(Dispute(str(item.image), split, "nothing", "an object", float(confidence[number]), place))
        missed += [(item, place) for _, place in _alone(truth, answer > 0, usual)]
        large += int((np.unique(truth[truth > 0], return_counts=True)[1] >= usual).sum())
    # No model says how sure it is of nothing; how rarely it misses such an object stands for that.
    sure = 1.0 - len(missed) / large
    if sure >= _SURE:
        found += [Dispute(str(item.image), split, "an object", "nothing", sure, place) for item, place in missed]
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
