"""Predicts one image, with its objects, in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cytoray_analysis.each import predict_each, require_each
from cytoray_analysis.images import Image
from cytoray_analysis.inference.objects import require_labels
from cytoray_analysis.predictor import Prediction, Predictor
from cytoray_analysis.selection import Selection
from cytoray_serving.inputs import cells_of_rows, in_model_axes, label_pixels, require_objects_fit
from cytoray_serving.replica.steps import run_step

Progress = Callable[[int, int], None]


def in_axes_of(predictor: Predictor, image: Image, selection: Selection) -> Image:
    """Return an image in the axes of a model.

    Raises
    ------
    AxesError, RequestError
        The model does not accept such images, or not each of their frames or planes.
    """
    spec = predictor.bundle.spec
    require_each(spec, predictor.task.output.per, selection.each)
    return in_model_axes(image, movie=spec.input.movies)


def answer_one(
    predictor: Predictor,
    image: Image,
    selection: Selection,
    *,
    masks: Image | None = None,
    boxes: Sequence[Sequence[float]] | None = None,
    segmenter: Predictor | None = None,
    progress: Progress | None = None,
) -> Prediction:
    """Predict an image that fits into memory, or a movie.

    Parameters
    ----------
    image
        The part of it that `selection` chose.
    masks, boxes, segmenter
        The objects for models that need them: a label image, boxes with X first, or a model that finds them.
        progress
    Called with the finished and total frames while the segmenter runs.

    Raises
    ------
    InputError
        The model does not accept such an image or such objects.
    """
    require_objects_fit(predictor, masks=masks, boxes=boxes, segmentation=segmenter)
    image = in_axes_of(predictor, image, selection)
    objects: Any = None
    if segmenter is not None:
        require_labels(segmenter, segmenter.identity.name)
        image, objects = run_step(segmenter, image, selection=selection, progress=progress)
    elif masks is not None:
        objects = label_pixels(masks, predictor.bundle.spec.input, selection, image.axes)
        image = image.warn(*masks.warnings)
    elif boxes is not None:
        objects = cells_of_rows(boxes, image, predictor.bundle.spec.input)
    return predict_each(predictor, image, selection, objects)
