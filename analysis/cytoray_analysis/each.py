"""Answers for every plane or frame of an image by itself, put together as one stack on the axes of the image.

Numbers are unique over the stack: the objects of a plane go on where those of the plane before it ended. One plane is
decoded and answered at a time; beside it lies the stack of the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.answer_warnings import AnswerWarning, join_warnings
from cytoray_analysis.bundle import BundleSpec
from cytoray_analysis.cells import Cells
from cytoray_analysis.errors import RequestError
from cytoray_analysis.images import Image
from cytoray_analysis.images.choose import entries_along
from cytoray_analysis.predictor import Prediction, Predictor
from cytoray_analysis.selection import Selection
from cytoray_analysis.tasks import Classes
from cytoray_analysis.tasks.protocol import Per

_NAMES = {"T": ("frame", "frames"), "Z": ("plane", "planes")}
_LEAVE = {
    "T": "leave --frame each out",
    "Z": "leave --plane each out; --plane N takes one plane and --plane max their maximum, for a model of planes",
}


def predict_each(predictor: Predictor, image: Image, selection: Selection, objects: Any = None) -> Prediction:
    """Answer for an image, or for every plane or frame of it where a choice says ``each``.

    Parameters
    ----------
    predictor
        The model.
    image
        With all else chosen already, see :func:`cytoray_analysis.images.choose.choose`.
    selection
        What says ``each``; an axis that the image lacks needs no stack.
    objects
        As :meth:`~cytoray_analysis.predictor.Predictor.predict` takes them; for ``each`` label images of the whole
        stack, whose leading axes are those of the planes and frames.

    Returns
    -------
    Prediction
        By kind: ``labels`` (planes…, spatial…), numbered through (classes per pixel stay what they are); ``image``
        (channels, planes…, spatial…); ``class`` all cells, whose boxes have the number of their plane in front.

    Raises
    ------
    RequestError
        The model takes all planes or frames together, or objects are given that are no label images of the stack.
    ImageError
        A plane cannot be used.
    """
    axes = "".join(axis for axis in selection.each if axis in image.axes)
    require_each(predictor.bundle.spec, predictor.task.output.per, selection.each)
    if not axes:
        return predictor.predict(image, objects)
    lengths = tuple(image.size(axis) for axis in axes)
    parts = _objects_of(objects, axes, lengths, image)
    answers = (predictor.predict(part, parts(place)) for place, part in entries_along(image, axes))
    return replace(_STACKED[predictor.task.output.truth](predictor, answers, lengths), axes=_ordered(axes, predictor))


def require_each(spec: BundleSpec, per: Per, axes: str) -> None:
    """Raise :class:`RequestError` where a model cannot answer each entry of these axes by itself.

    Parameters
    ----------
    spec, per
        The model, and what one of its answers is about.
    axes
        Of ``TZ``; empty for none.
    """
    expected = spec.input
    for axis in axes:
        one, several = _NAMES[axis]
        if per == "link":
            what = "which follows cells over the frames of a whole movie"
        elif axis in expected.axes or (axis == "Z" and expected.planes is not None):
            what = f"which takes all {several} of an image together"
        else:
            continue
        raise RequestError(f"expected no {one} each for the model {spec.name}, {what}", field=one, hint=_LEAVE[axis])


@dataclass
class _Together:
    """What the answers of all planes have in common."""

    first: Prediction | None = None
    objects: int = 0
    seconds: dict[str, float] | None = None
    warnings: tuple[AnswerWarning, ...] = ()

    def add(self, one: Prediction) -> None:
        self.first = self.first or one
        self.objects += one.objects
        before = self.seconds or {}
        self.seconds = before | {name: before.get(name, 0.0) + taken for name, taken in one.seconds.items()}
        self.warnings = join_warnings(self.warnings, one.warnings)

    def answer(self, answer: Any, **changes: Any) -> Prediction:
        if self.first is None:  # an image has at least one entry along every axis
            raise RequestError("expected at least one plane, got none", field="plane")
        return replace(
            self.first,
            **{"answer": answer, "objects": self.objects, "seconds": self.seconds, "warnings": self.warnings} | changes,
        )


def _labels(predictor: Predictor, answers: Iterator[Prediction], lengths: tuple[int, ...]) -> Prediction:
    together, stack = _Together(), None
    sure: list[NDArray[np.float32]] = []
    numbered = predictor.task.output.numbered
    for index, one in enumerate(answers):
        labels = one.answer
        if stack is None:
            stack = np.zeros((int(np.prod(lengths)), *labels.shape), np.int32)
        np.copyto(stack[index], labels)
        if numbered:
            np.add(stack[index], together.objects, out=stack[index], where=labels > 0)
        if one.confidence is not None:
            sure.append(one.confidence[1:] if sure else one.confidence)
        together.add(one)
    stack = np.zeros((0,), np.int32) if stack is None else stack.reshape(*lengths, *stack.shape[1:])
    count = together.objects if numbered else int(stack.max(initial=0))
    return together.answer(stack, objects=count, confidence=np.concatenate(sure) if sure else None)


def _image(predictor: Predictor, answers: Iterator[Prediction], lengths: tuple[int, ...]) -> Prediction:
    together, stack = _Together(), None
    for index, one in enumerate(answers):
        if stack is None:
            channels, *shape = one.answer.shape
            stack = np.zeros((channels, int(np.prod(lengths)), *shape), np.float32)
        stack[:, index] = one.answer
        together.add(one)
    stack = np.zeros((0, 0), np.float32) if stack is None else stack
    return together.answer(stack.reshape(stack.shape[0], *lengths, *stack.shape[2:]))


def _classes(predictor: Predictor, answers: Iterator[Prediction], lengths: tuple[int, ...]) -> Prediction:
    together, found, boxes, numbers = _Together(), [], [], []
    for index, one in enumerate(answers):
        classes: Classes = one.answer
        place = np.array(np.unravel_index(index, lengths), np.float64)
        leading = np.broadcast_to(np.stack([place, place + 1]), (len(classes), 2, len(lengths)))
        boxes.append(np.concatenate([leading, classes.cells.boxes], axis=2))
        numbers.append(classes.cells.numbers)
        found.append(classes)
        together.add(one)
    number = np.concatenate(numbers)
    if len(np.unique(number)) < len(number):
        number = np.arange(1, len(number) + 1)
        if any(len(one) > 1 for one in found):
            warning = AnswerWarning(
                "cells-renumbered",
                "the masks give one number to cells of several planes or frames: all cells are numbered from 1",
            )
            together.warnings = join_warnings(together.warnings, (warning,))
    cells = Cells(np.concatenate(boxes), number)
    return together.answer(Classes(found[0].names, np.concatenate([one.probabilities for one in found]), cells))


_STACKED: dict[str, Callable[[Predictor, Iterator[Prediction], tuple[int, ...]], Prediction]] = {
    "labels": _labels,
    "image": _image,
    "class": _classes,
}


def _objects_of(objects: Any, axes: str, lengths: tuple[int, ...], image: Image) -> Callable[[tuple[int, ...]], Any]:
    """Return what gives the objects of one plane, by its place."""
    if objects is None:
        return lambda place: None
    shape = getattr(objects, "shape", ())
    if isinstance(objects, Cells) or shape[: len(lengths)] != lengths:
        what = "boxes" if isinstance(objects, Cells) else f"masks of shape {tuple(shape)}"
        wanted = " and ".join(f"{length} {_NAMES[axis][1]}" for axis, length in zip(axes, lengths, strict=True))
        raise RequestError(
            f"expected masks of all {wanted} of {image.source}, got {what}",
            field="boxes" if isinstance(objects, Cells) else "masks",
            hint=f"give masks with the axes {axes}YX, or choose one {_NAMES[axes[0]][0]} by its number",
        )
    return lambda place: objects[place]


def _ordered(axes: str, predictor: Predictor) -> str:
    spatial = predictor.bundle.spec.input.spatial_axes
    return "".join(axis for axis in "TZYX" if axis in axes or axis in spatial)
