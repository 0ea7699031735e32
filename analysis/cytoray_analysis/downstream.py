"""Whether a predicted stain is as useful as the real one for the next step: segmenting the cells in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.tasks.instance_scores import count_objects, score_instances


def downstream_agreement(
    segment: Callable[[NDArray[Any]], NDArray[np.integer]],
    real: Sequence[NDArray[Any]],
    predicted: Sequence[NDArray[Any]],
    truths: Sequence[NDArray[np.integer]] | None = None,
) -> dict[str, float]:
    """Score a segmentation of predicted stains against one of the real stains.

    Parameters
    ----------
    segment
        From an image of the stain (spatial…) to instance labels, 0 for background; such as
        ``lambda image: predictor.predict(image_from_array(image, "YX")).answer``.
    real, predicted
        The measured and the predicted stain, (spatial…), in the same order.
    truths
        True instance labels, if any.

    Returns
    -------
    dict
        ``ap50``, ``f1_50`` and ``dice`` of the labels on the predicted stain, with those on the real stain as truth.
        With `truths` also ``ap50_real`` and ``ap50_predicted``, of either against them. Scores with nothing to count
        are absent.
    """
    on_real = [segment(image) for image in real]
    on_predicted = [segment(image) for image in predicted]
    agreement = score_instances([count_objects(a, t) for a, t in zip(on_predicted, on_real, strict=True)])
    scores: dict[str, float] = {name: agreement[name] for name in ("ap50", "f1_50", "dice") if name in agreement}
    if truths is not None:
        for name, answers in (("ap50_real", on_real), ("ap50_predicted", on_predicted)):
            against = score_instances([count_objects(a, t) for a, t in zip(answers, truths, strict=True)])
            if "ap50" in against:
                scores[name] = against["ap50"]
    return scores
