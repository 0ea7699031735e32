"""Pipelines: the answer of each model is the input of the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cytoray_analysis.each import predict_each
from cytoray_analysis.images import Image
from cytoray_analysis.predictor import Prediction, Predictor
from cytoray_analysis.selection import EVERYTHING, Selection
from cytoray_serving.inputs import in_model_axes
from cytoray_serving.replica.step_checks import require_step


def run_step(
    predictor: Predictor,
    image: Image,
    objects: Any = None,
    selection: Selection = EVERYTHING,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Image, Any]:
    """Return the input of the next model: labels become its objects, a predicted image becomes its image.

    The image has the warnings of the answer.

    Parameters
    ----------
    selection
        Whether every plane or frame is predicted separately; the rest of the selection is applied already.
    progress
        Called with the finished and total frames of a movie.

    Raises
    ------
    RequestError
        The answers of this model are neither labels nor images.
    """
    step = require_step(predictor.identity.name, predictor.task.output.truth)
    return step(predictor, image, objects, selection, progress)


def run_steps(
    predictors: Sequence[Predictor], image: Image, objects: Any = None, selection: Selection = EVERYTHING
) -> Prediction:
    """Predict with several models: labels are the objects of the next model, a predicted image is its image.

    Parameters
    ----------
    predictors
        The models in order, at least one.
    image
        The image, or a movie, whose frames a model of labels segments one by one.
    objects
        The given objects of the first model.
    selection
        Whether every plane or frame is predicted separately; the rest of the selection is applied already.

    Returns
    -------
    Prediction
        The answer of the last model.
    """
    movie = any(predictor.bundle.spec.input.movies for predictor in predictors)
    image = in_model_axes(image, movie=movie)
    *earlier, last = predictors
    for predictor in earlier:
        image, objects = run_step(predictor, image, objects, selection)
    return predict_each(last, image, selection, objects)
