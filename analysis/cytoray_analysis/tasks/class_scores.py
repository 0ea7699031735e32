"""How well predicted classes match true ones, counted over all cells together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.tasks.calibration import binned_calibration_error

PER_CLASS = ("precision", "recall", "f1", "jaccard")


def metric_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of all scores that :func:`score_classes` gives, in its order."""
    macro = (f"{name}_macro" for name in PER_CLASS)
    return (
        "balanced_accuracy",
        "accuracy",
        *macro,
        "ece",
        *(f"{name}/{label}" for name in PER_CLASS for label in names),
    )


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
        ``jaccard_macro``: means over the classes that occur in the truth, so that a class that does not occur changes
        nothing but the precision of others; ``ece``: see :func:`calibration_error`; and ``precision/NAME``,
        ``recall/NAME``, ``f1/NAME``, ``jaccard/NAME`` of the classes. A score of a class that is a share of nothing is
        absent: its precision where it is never predicted, its recall where it does not occur, all four where both hold;
        in the means, a class that is never predicted has a precision of 0. Empty where there is no cell.
    """
    if not len(truth):
        return {}
    classes = np.arange(len(names))
    predicted = probabilities.argmax(axis=1)
    occurs, is_predicted = np.isin(classes, truth), np.isin(classes, predicted)
    counted = {"precision": is_predicted, "recall": occurs}
    each = _each_class(predicted, truth, classes)
    macro = {name: float(values[occurs].mean()) for name, values in each.items()}
    scores = {"balanced_accuracy": macro["recall"], "accuracy": float(np.mean(predicted == truth))}
    scores |= {f"{name}_macro": value for name, value in macro.items()}
    scores["ece"] = calibration_error(probabilities, truth)
    for name, values in each.items():
        known = zip(names, values, counted.get(name, occurs | is_predicted), strict=True)
        scores |= {f"{name}/{label}": float(value) for label, value, there in known if there}
    return scores


def _each_class(
    predicted: NDArray[np.integer], truth: NDArray[np.integer], classes: NDArray[np.integer]
) -> dict[str, NDArray[np.float64]]:
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

    See :func:`~cytoray_analysis.tasks.calibration.binned_calibration_error`; NaN where there is no cell.
    """
    if not len(truth):
        return float("nan")
    return binned_calibration_error(probabilities.max(axis=1), probabilities.argmax(axis=1) == truth, bins)
