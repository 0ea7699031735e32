"""How sure a segmented object is: a number that, after fitting on validation data, is a probability.

The raw confidence of an object is turned into the probability that it matches a true one by Platt scaling
(Platt, 1999; as for neural networks in Guo et al., ICML 2017, arXiv:1706.04599): a line on the logit scale, whose
slope and offset are kept with the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logit

from cytoray_analysis.tasks.overlap import overlap

_SLOPES, _OFFSETS = (0.05, 50.0), (-50.0, 50.0)
_CERTAIN = 1e-4  # raw confidences are kept this far from 0 and 1, where logits end


def calibrate(raw: NDArray[np.floating[Any]], slope: float, offset: float) -> NDArray[np.float32]:
    """Turn raw confidences, 0 to 1, into probabilities; slope 1 and offset 0 leave them as they are."""
    certain = np.clip(np.asarray(raw, np.float64), _CERTAIN, 1 - _CERTAIN)
    calibrated: NDArray[np.float32] = expit(slope * logit(certain) + offset).astype(np.float32)
    return calibrated


def matched_objects(
    answer: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]], threshold: float = 0.5
) -> NDArray[np.bool_]:
    """Tell for every predicted object whether it matches a true one.

    Parameters
    ----------
    answer, truth
        Label images of one shape, 0 background; those of `answer` are 1 to n. Of objects whose truth is mostly unknown
        (:func:`~cytoray_analysis.tasks.overlap.judged_objects`), the result means nothing.
    threshold
        Intersection over union that makes a match.

    Returns
    -------
    NDArray
        (n + 1,), by the object's number; entry 0 means nothing.
    """
    found = overlap(answer, truth)
    matched = np.zeros(int(answer.max(initial=0)) + 1, np.bool_)
    matched[found.pairs[found.matches(threshold), 1]] = True
    return matched


def fit_confidence(
    confidences: Sequence[NDArray[np.floating[Any]]], matched: Sequence[NDArray[np.bool_]]
) -> dict[str, float]:
    """Fit the calibration on validation images.

    Parameters
    ----------
    confidences
        Per image (n + 1,) as decoded with slope 1 and offset 0, entry 0 meaning nothing.
    matched
        Per image (n + 1,) as returned by :func:`matched_objects`.

    Returns
    -------
    dict
        ``confidence_slope``, above 0 so that the order of the objects stays, and ``confidence_offset``, which maximise
        the likelihood of `matched`; 1 and 0 where there is no object.
    """
    raw, right = _pooled(confidences), _pooled(matched)
    if not len(raw):
        return {"confidence_slope": 1.0, "confidence_offset": 0.0}
    scores = logit(np.clip(raw, _CERTAIN, 1 - _CERTAIN))
    # Platt's targets, short of 0 and 1, keep the slope finite if the objects are separable.
    hits = right.sum()
    target = np.where(right > 0, (hits + 1) / (hits + 2), 1 / (len(raw) - hits + 2))

    def cost(line: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        score = line[0] * scores + line[1]
        error = expit(score) - target
        likelihood = target * log_expit(score) + (1 - target) * log_expit(-score)
        # A slope of 1 is worth as much as one object against it: a handful of objects does not flatten the line.
        pull = (line[0] - 1) / len(raw)
        value = pull * (line[0] - 1) / 2 - float(likelihood.mean())
        return value, np.array([(error * scores).mean() + pull, error.mean()])

    fitted = minimize(cost, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[_SLOPES, _OFFSETS])
    return {"confidence_slope": float(fitted.x[0]), "confidence_offset": float(fitted.x[1])}


def _pooled(items: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Put the objects of all images into one array, without each image's entry 0."""
    return np.concatenate([np.zeros(0), *(item[1:] for item in items)])
