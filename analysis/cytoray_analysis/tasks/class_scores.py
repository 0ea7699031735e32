"""How well predicted classes match true ones, counted over all cells together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.tasks.calibration import binned_calibration_error

PER_CLASS = ("precision", "recall", "f1", "jaccard")


def score_classes(
    probabilities: NDArray[np.floating], truth: NDArray[np.integer], names: Sequence[str]
) -> dict[str, float]:
    """Score class probabilities.

    Parameters
    ----------
    probabilities
        (N, K).
    truth
        (N,) class indices, all known.
    names
        The K classes.

    Returns
    -------
    dict
        ``balanced_accuracy`` (mean recall), ``accuracy``; ``precision_macro``, ``recall_macro``, ``f1_macro``,
        ``jaccard_macro``: means over the classes that occur in the truth, so that a class that nobody could have found
        changes nothing but the precision of others; ``ece``: see :func:`calibration_error`; and ``precision/NAME``,
        ``recall/NAME``, ``f1/NAME``, ``jaccard/NAME`` of every class. A ratio without a case is 0, except for a
        class that neither occurs nor is predicted: there nothing was wrong, and all four are 1.
    """
    classes = np.arange(len(names))
    predicted = probabilities.argmax(axis=1)
    occurs = np.isin(classes, truth)
    silent = ~occurs & ~np.isin(classes, predicted)
    each = _each_class(predicted, truth, classes)
    for values in each.values():
        values[silent] = 1.0
    macro = {name: float(values[occurs].mean()) if occurs.any() else 1.0 for name, values in each.items()}
    scores = {
        "balanced_accuracy": macro["recall"],
        "accuracy": float(np.mean(predicted == truth)) if len(truth) else 1.0,
    }
    scores |= {f"{name}_macro": value for name, value in macro.items()}
    scores["ece"] = calibration_error(probabilities, truth)
    for name, values in each.items():
        scores |= {f"{name}/{label}": float(value) for label, value in zip(names, values, strict=True)}
    return scores


def _each_class(
    predicted: NDArray[np.integer], truth: NDArray[np.integer], classes: NDArray[np.integer]
) -> dict[str, NDArray[np.float64]]:
    if not len(truth):
        return {name: np.zeros(len(classes)) for name in PER_CLASS}
    from sklearn.metrics import jaccard_score, precision_recall_fscore_support

    precision, recall, f1, _ = precision_recall_fscore_support(truth, predicted, labels=classes, zero_division=0.0)
    jaccard = jaccard_score(truth, predicted, labels=classes, average=None, zero_division=0.0)
    return dict(zip(PER_CLASS, (precision, recall, f1, jaccard), strict=True))


def count_confusions(
    probabilities: NDArray[np.floating], truth: NDArray[np.integer], classes: int
) -> NDArray[np.int64]:
    """Return the confusion matrix (K, K): row true class, column predicted class, entry number of cells."""
    if not len(truth):
        return np.zeros((classes, classes), np.int64)
    from sklearn.metrics import confusion_matrix

    matrix: NDArray[np.int64] = confusion_matrix(truth, probabilities.argmax(axis=1), labels=np.arange(classes))
    return matrix


def calibration_error(probabilities: NDArray[np.floating], truth: NDArray[np.integer], *, bins: int = 15) -> float:
    """Return the expected calibration error of the most probable class.

    See :func:`~cytoray_analysis.tasks.calibration.binned_calibration_error`; 0 where there is no cell.
    """
    if not len(truth):
        return 0.0
    return binned_calibration_error(probabilities.max(axis=1), probabilities.argmax(axis=1) == truth, bins)
