"""A few numbers about an answer, and how far two answers to the same image agree.

The numbers are compared between versions while a new one goes live, see :mod:`cytoray_services.rollouts`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from cytoray_analysis.tasks import TruthKind

if TYPE_CHECKING:
    from cytoray_analysis.predictor import Prediction, Predictor

_MOST_PIXELS = 2**16  # that statistics of an image are taken over: a hundredth of a standard deviation off


def summarise(prediction: Prediction, megapixels: float) -> dict[str, float]:
    """Describe an answer in a few numbers, in less than three milliseconds at one megapixel.

    Parameters
    ----------
    megapixels
        Size of the image.

    Returns
    -------
    dict
        By kind of answer:

        labels
            ``objects_per_megapixel``, ``covered`` (share of the pixels), ``median_area`` (pixels), ``mean_confidence``
        class
            ``share_of_NAME`` for each class, ``mean_top_probability``
        image
            ``channel_N_mean``, ``channel_N_deviation`` and ``channel_N_quantile99`` for each channel
        lineage
            ``tracks_per_frame``, ``divisions_per_track``, ``mean_confidence``

        What an answer without objects cannot say is left out.
    """
    return _SUMMARIES[prediction.kind](prediction, megapixels)


def compare(first: Prediction, second: Prediction, predictor: Predictor) -> dict[str, float]:
    """Say how far the second of two answers to the same image agrees with the first.

    Parameters
    ----------
    predictor
        Of either; both are of one task.

    Returns
    -------
    dict
        The scores of the task, the first answer being taken for the truth; those of single classes are left out.
    """
    from cytoray_services.promotion.agreement import score_alike

    scores = score_alike(predictor, [second], [first])
    return {name: float(value) for name, value in scores.items() if "/" not in name and math.isfinite(value)}


def _labels(prediction: Prediction, megapixels: float) -> dict[str, float]:
    areas = np.bincount(prediction.answer.ravel())
    found = areas[1:][areas[1:] > 0]
    summary = {
        "objects_per_megapixel": prediction.objects / megapixels,
        "covered": float(found.sum()) / max(1, prediction.answer.size),
    }
    if len(found):
        summary["median_area"] = float(np.median(found))
    if prediction.confidence is not None and len(prediction.confidence) > 1:
        summary["mean_confidence"] = float(prediction.confidence[1:].mean())
    return summary


def _classes(prediction: Prediction, megapixels: float) -> dict[str, float]:
    classes = prediction.answer
    if not len(classes):
        return {}
    counts = np.bincount(classes.probabilities.argmax(axis=1), minlength=len(classes.names))
    summary = {
        f"share_of_{name}": float(count) / len(classes) for name, count in zip(classes.names, counts, strict=True)
    }
    return summary | {"mean_top_probability": float(classes.probabilities.max(axis=1).mean())}


def _image(prediction: Prediction, megapixels: float) -> dict[str, float]:
    summary: dict[str, float] = {}
    for number, channel in enumerate(prediction.answer):
        # An odd stride, so that not the same columns are taken of every row.
        pixels = channel.ravel()[:: channel.size // _MOST_PIXELS | 1]
        summary |= {
            f"channel_{number}_mean": float(pixels.mean()),
            f"channel_{number}_deviation": float(pixels.std()),
            f"channel_{number}_quantile99": float(np.quantile(pixels, 0.99)),
        }
    return summary


def _lineage(prediction: Prediction, megapixels: float) -> dict[str, float]:
    lineage = prediction.answer
    tracks = len(lineage.track_id)
    summary = {"tracks_per_frame": tracks / max(1, lineage.frames)}
    if tracks:
        summary["divisions_per_track"] = len(lineage.divisions) / tracks
        if lineage.confidence is not None:
            summary["mean_confidence"] = float(lineage.confidence.mean())
    return summary


_SUMMARIES: dict[TruthKind, Callable[[Prediction, float], dict[str, float]]] = {
    "labels": _labels,
    "class": _classes,
    "image": _image,
    "lineage": _lineage,
}
