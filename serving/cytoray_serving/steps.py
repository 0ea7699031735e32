"""Models that work one after the other: what one answers is what the next is asked about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cytoray_analysis.each import predict_each
from cytoray_analysis.errors import RequestError
from cytoray_analysis.images import Image
from cytoray_analysis.inference.objects import segment
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.selection import EVERYTHING, Selection
from cytoray_analysis.tasks import TruthKind
from cytoray_analysis.tasks.protocol import Per
from cytoray_serving.answers import Answered
from cytoray_serving.answers.images import answer_image
from cytoray_serving.inputs import in_model_axes, is_movie


@dataclass(frozen=True)
class Step:
    """One model of several: its name, what it answers, and what about."""

    name: str
    kind: TruthKind
    per: Per


def check_steps(steps: Sequence[Step], *, told: str | None) -> None:
    """Raise :class:`RequestError` unless each model can use what the one before it answers.

    Parameters
    ----------
    steps
        In the order in which they work.
    told
        What is told of the objects beside the image, ``masks`` or ``boxes``; None for nothing.
    """
    objects = told
    for step in steps:
        if objects is not None and (step.per == "pixel" or (step.per == "link" and objects == "boxes")):
            raise RequestError(
                f"expected an image alone for the model {step.name}, got {objects} beside it",
                field=told or "steps",
                hint="models of cells take masks and boxes, models of movies take masks",
            )
        if objects is None and step.per == "link":
            raise RequestError(
                f"expected the objects of the movie for the model {step.name}, got none",
                field="masks",
                hint="name masks, or a segmentation such as nuclei@champion",
            )
        if step is not steps[-1]:
            require_step(step.name, step.kind)
        objects = "labels" if step.kind == "labels" else None


def require_step(name: str, kind: TruthKind) -> None:
    """Raise :class:`RequestError` unless the answers of a model are something that another one can be asked about."""
    if kind not in ("labels", "image"):
        raise RequestError(
            f"expected a model of labels or images before another one, got {name}, whose answers are of the "
            f"kind {kind!r}",
            field="segmentation",
            hint="name a model that was trained for segmentation",
        )


def run_step(
    predictor: Predictor, image: Image, objects: Any = None, selection: Selection = EVERYTHING
) -> tuple[Image, Any]:
    """Return what the next model is asked about: labels become its objects, a predicted image becomes its image.

    Either way the image carries the warnings of the answer.

    Parameters
    ----------
    selection
        Says whether every plane or frame is answered by itself; all else is chosen already.

    Raises
    ------
    RequestError
        The answers of this model are neither.
    """
    require_step(predictor.identity.name, predictor.task.output.truth)
    if predictor.task.output.truth == "labels":
        if selection.each:
            stack = predict_each(predictor, image, selection)
            return image.warn(*stack.warnings), stack.answer
        found = segment(image, predictor)
        return image.warn(*found.warnings), found.labels
    prediction = predict_each(predictor, image, selection, objects)
    # Deviations, which come after the channels, are not for the next model.
    channels = prediction.answer[: len(predictor.bundle.spec.task.arguments["channels"])]
    predicted = answer_image(Answered(replace(prediction, answer=channels), image, predictor))
    return predicted.warn(*prediction.warnings), None


def run_steps(
    predictors: Sequence[Predictor], image: Image, objects: Any = None, selection: Selection = EVERYTHING
) -> Answered:
    """Answer with several models: labels are the objects of the next model, a predicted image is its image.

    Parameters
    ----------
    predictors
        At least one, in the order in which they work.
    image
        The image, or a movie of which a model of labels segments every frame.
    objects
        What the first model is told of the objects.
    selection
        Says whether every plane or frame is answered by itself; all else is chosen already.

    Returns
    -------
    Answered
        Of the last model.
    """
    movie = any(is_movie(predictor.bundle.spec.input) for predictor in predictors)
    image = in_model_axes(image, movie=movie)
    *earlier, last = predictors
    for predictor in earlier:
        image, objects = run_step(predictor, image, objects, selection)
    return Answered(predict_each(last, image, selection, objects), image, last, objects)
