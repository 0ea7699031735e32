"""Statistics of an answer, and the agreement of two answers to the same image.

Rollouts compare these numbers between versions, see :mod:`cytoray_services.rollouts`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cytoray_serving.answers.kind import answer_kind

if TYPE_CHECKING:
    from cytoray_analysis.predictor import Prediction


def summarise(prediction: Prediction, megapixels: float) -> dict[str, float]:
    """Return a few statistics of an answer, in less than three milliseconds at one megapixel.

    Parameters
    ----------
    megapixels
        Size of the image.

    Returns
    -------
    dict
        The statistics of the kind, without those that an answer without objects lacks.
    """
    return answer_kind(prediction.kind).summary(prediction, megapixels)


def compare(first: Prediction, second: Prediction) -> dict[str, float]:
    """Return how far the second of two answers of one task to the same image agrees with the first.

    Returns
    -------
    dict
        The scores of the task with the first answer as the truth, without scores of single classes.
    """
    from cytoray_services.promotion.agreement import score_alike

    scores = score_alike([second], [first])
    return {name: float(value) for name, value in scores.items() if "/" not in name and math.isfinite(value)}
