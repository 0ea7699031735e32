"""Calibration error of a model on its validation images, which its calibration was fitted on.

Each unit (image, movie, group) is answered with parameters fitted on the others. The model itself uses parameters
fitted on all units.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from cytoray_analysis.predictor import Predictor
from cytoray_analysis.tasks import fit_decode
from cytoray_services.kinds.evaluated import Evaluation, ItemScore

FOLDS = 5


def calibrated_out_of_fold(evaluation: Evaluation, predictor: Predictor) -> Evaluation:
    """Return an evaluation whose probabilities, and so its ``ece``, come from calibrations fitted without the image.

    Other scores do not change: a temperature does not change the most likely class. Without ``ece``, or with a single
    unit, the evaluation is returned unchanged.

    Parameters
    ----------
    evaluation
        Of the validation images.
    predictor
        The model, whose network answers them again.
    """
    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(evaluation.units))}
    folds = min(FOLDS, len(numbers))
    if "ece" not in evaluation.metrics or folds < 2:
        return evaluation
    fold = np.array([numbers[unit] % folds for unit in evaluation.units])
    outputs = [predictor.outputs(item.labelled.image, item.labelled.objects) for item in evaluation.items]
    truths = [item.labelled.truth for item in evaluation.items]
    items = list(evaluation.items)
    for held_out in range(folds):
        fitted_on = np.flatnonzero(fold != held_out)
        decode = fit_decode(predictor.task, [outputs[at] for at in fitted_on], [truths[at] for at in fitted_on])
        for at in np.flatnonzero(fold == held_out):
            items[at] = _answered(predictor, items[at], predictor.task.decode(outputs[at], decode).values)
    error = predictor.task.score([item.prediction.scored for item in items], truths)["ece"]
    return replace(evaluation, items=tuple(items), metrics=evaluation.metrics | {"ece": error})


def _answered(predictor: Predictor, item: ItemScore, probabilities: Any) -> ItemScore:
    answer = replace(item.prediction.answer, probabilities=probabilities)
    metrics = predictor.task.score([probabilities], [item.labelled.truth])
    return replace(item, prediction=replace(item.prediction, answer=answer), metrics=metrics)
