"""Separate answers for every plane or frame of an image, combined to one stack on the axes of the image.

Numbers are unique over the stack: the numbers of a plane continue those of the previous plane. For ``stitch``, objects
that go on in the next plane have one number. Memory holds one plane and the stack of answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.answer_warnings import AnswerWarning, join_warnings
from cytoray_analysis.bundle import BundleSpec
from cytoray_analysis.cells import Cells
from cytoray_analysis.errors import RequestError
from cytoray_analysis.images import Image
from cytoray_analysis.images.choose import entries_along
from cytoray_analysis.kinds import Per
from cytoray_analysis.selection import Selection

if TYPE_CHECKING:
    from cytoray_analysis.predictor import Prediction, Predictor

_NAMES = {"T": ("frame", "frames"), "Z": ("plane", "planes")}
_LEAVE = {
    "T": "remove --frame each",
    "Z": "remove it; --plane N selects one plane and --plane max their maximum, for a model of planes",
}


def predict_each(predictor: Predictor, image: Image, selection: Selection, objects: Any = None) -> Prediction:
    """Answer for an image, or for every plane or frame of it if the selection is ``each`` or ``stitch``.

    Parameters
    ----------
    predictor
        The model.
    image
        With everything else selected, see :func:`cytoray_analysis.images.choose.choose`.
    selection
        Contains ``each`` or ``stitch``; an axis that the image lacks needs no stack.
    objects
        As :meth:`~cytoray_analysis.predictor.Predictor.predict` takes them; for ``each`` label images of the whole
        stack, whose leading axes are those of the planes and frames. ``stitch`` takes none.

    Returns
    -------
    Prediction
        By kind: ``labels`` (planes…, spatial…), numbered consecutively (classes per pixel do not change); ``image``
        (channels, planes…, spatial…); ``class`` all cells, whose boxes have the number of their plane in front.

    Raises
    ------
    RequestError
        The model uses all planes or frames together, or the given objects are not label images of the stack.
    ImageError
        A plane cannot be used.
    """
    axes = "".join(axis for axis in selection.each if axis in image.axes)
    require_each(predictor.bundle.spec, predictor.task.output.per, selection.each)
    if selection.joined:
        _require_numbered(predictor)
    if not axes:
        return predictor.predict(image, objects)
    lengths = tuple(image.size(axis) for axis in axes)
    parts = _objects_of(objects, axes, lengths, image)
    answers = (predictor.predict(part, parts(place)) for place, part in entries_along(image, axes))
    stack = _cells if predictor.task.output.per == "cell" else _pixels
    answer = stack(predictor, answers, lengths)
    answer = replace(answer, image=image, given=objects, axes=_ordered(axes, predictor))
    return _stitched(answer) if selection.joined and selection.joined in axes else answer


def _require_numbered(predictor: Predictor) -> None:
    output = predictor.task.output
    if output.truth != "labels" or not output.numbered:
        raise RequestError(
            "expected a model whose answers are objects for plane=stitch, got "
            f"{predictor.bundle.spec.name}, a model for {predictor.bundle.spec.task.name}",
            field="plane",
            hint="use each, which answers every plane separately",
        )


def _stitched(stack: Prediction) -> Prediction:
    """Join the objects of neighbouring planes, in the volume of each frame."""
    from cytoray_analysis.stitching import joined_confidence, stitch

    answer, before = stack.answer, 0
    sure = stack.confidence
    confidences = [] if sure is None else [sure[:1]]
    for volume in answer.reshape(-1, *answer.shape[-3:]):
        objects = stitch(volume)
        if sure is not None:
            sizes = np.bincount(volume.ravel(), minlength=len(objects))
            confidences.append(joined_confidence(sure[: len(objects)], objects, sizes)[1:])
        objects[objects > 0] += before
        before = max(before, int(objects.max(initial=0)))
        np.copyto(volume, objects[volume])
    confidence = np.concatenate(confidences) if confidences else None
    return replace(stack, answer=answer, objects=before, confidence=confidence, joined="Z")


def require_each(spec: BundleSpec, per: Per, axes: str) -> None:
    """Raise :class:`RequestError` if a model cannot answer each entry of these axes separately.

    Parameters
    ----------
    spec, per
        The model, and the unit of one answer.
    axes
        Of ``TZ``; empty for none.
    """
    expected = spec.input
    for axis in axes:
        one, several = _NAMES[axis]
        if per == "link":
            what = "which follows cells over the frames of a whole movie"
        elif axis in expected.axes or (axis == "Z" and expected.planes is not None):
            what = f"which uses all {several} of an image together"
        else:
            continue
        raise RequestError(
            f"expected no --{one} each or stitch for the model {spec.name}, {what}", field=one, hint=_LEAVE[axis]
        )


@dataclass
class _Together:
    """Properties common to the answers of all planes."""

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


def _pixels(predictor: Predictor, answers: Iterator[Prediction], lengths: tuple[int, ...]) -> Prediction:
    """Stack the answers, after the axis of channels if there is one."""
    together, stack, leading = _Together(), np.zeros((0,), np.int32), 0
    sure: list[NDArray[np.float32]] = []
    numbered = predictor.task.output.numbered
    for index, one in enumerate(answers):
        shape = one.answer.shape
        if together.first is None:
            leading = len(shape) - len(predictor.bundle.spec.input.spatial_axes)
            stack = np.zeros((*shape[:leading], math.prod(lengths), *shape[leading:]), one.answer.dtype)
        part = stack[(slice(None),) * leading + (index,)]
        np.copyto(part, one.answer)
        if one.answer.dtype.kind == "i" and numbered:
            np.add(part, together.objects, out=part, where=one.answer > 0)
        if one.confidence is not None:
            sure.append(one.confidence[1:] if sure else one.confidence)
        together.add(one)
    count = together.objects if numbered else int(stack.max(initial=0))
    stack = stack.reshape(*stack.shape[:leading], *lengths, *stack.shape[leading + 1 :])
    return together.answer(stack, objects=count, confidence=np.concatenate(sure) if sure else None)


def _cells(predictor: Predictor, answers: Iterator[Prediction], lengths: tuple[int, ...]) -> Prediction:
    together, found, boxes, numbers = _Together(), [], [], []
    for index, one in enumerate(answers):
        cells = one.answer.cells
        place = np.array(np.unravel_index(index, lengths), np.float64)
        leading = np.broadcast_to(np.stack([place, place + 1]), (len(cells), 2, len(lengths)))
        boxes.append(np.concatenate([leading, cells.boxes], axis=2))
        numbers.append(cells.numbers)
        found.append(one.answer.values)
        together.add(one)
    number = np.concatenate(numbers)
    if len(np.unique(number)) < len(number):
        number = np.arange(1, len(number) + 1)
        if any(len(one) > 1 for one in found):
            warning = AnswerWarning(
                "cells-renumbered",
                "the masks use the same number for cells of several planes or frames: all cells are renumbered from 1",
            )
            together.warnings = join_warnings(together.warnings, (warning,))
    cells = Cells(np.concatenate(boxes), number)
    return together.answer(predictor.task.output.of_cells(np.concatenate(found), cells))


def _objects_of(objects: Any, axes: str, lengths: tuple[int, ...], image: Image) -> Callable[[tuple[int, ...]], Any]:
    """Return a function from the position of a plane to its objects."""
    if objects is None:
        return lambda place: None
    shape = getattr(objects, "shape", ())
    if isinstance(objects, Cells) or shape[: len(lengths)] != lengths:
        what = "boxes" if isinstance(objects, Cells) else f"masks of shape {tuple(shape)}"
        wanted = " and ".join(f"{length} {_NAMES[axis][1]}" for axis, length in zip(axes, lengths, strict=True))
        raise RequestError(
            f"expected masks of all {wanted} of {image.source}, got {what}",
            field="boxes" if isinstance(objects, Cells) else "masks",
            hint=f"use masks with the axes {axes}YX, or choose one {_NAMES[axes[0]][0]} by its number",
        )
    return lambda place: objects[place]


def _ordered(axes: str, predictor: Predictor) -> str:
    spatial = predictor.bundle.spec.input.spatial_axes
    return "".join(axis for axis in "TZYX" if axis in axes or axis in spatial)
