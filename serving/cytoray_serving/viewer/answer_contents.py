"""What the arrays of an answer show: labels or an image for the tiles, and a table of objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.images import Image, image_from_array
from cytoray_analysis.selection import EACH, STITCH, Selection
from cytoray_serving.answers.arrays import Arrays
from cytoray_serving.viewer.records import ObjectsTable

Cell = float | int | str | None
_DIGITS = 6


@dataclass(frozen=True, eq=False)
class Contents:
    """What is stored of an answer.

    Attributes
    ----------
    table
        Its objects.
    image
        Labels or a predicted image; None if it has none.
    labels
        Whether `image` has labels.
    """

    table: ObjectsTable
    image: Image | None
    labels: bool


def contents_of(found: Arrays, selection: Selection) -> Contents:
    """Return the contents of an answer.

    Parameters
    ----------
    found
        See :mod:`cytoray_serving.answers.arrays`.
    selection
        The part of the image that was asked for; it decides the meaning of a third axis.
    """
    arrays, kind = found.arrays, found.about["kind"]
    if kind == "labels":
        labels = arrays["labels"]
        axes = _axes(labels.ndim, selection)
        return Contents(_label_table(labels, arrays["confidence"], axes), image_from_array(labels, axes), labels=True)
    if kind == "lineage":
        masks = arrays["masks"]
        axes = "TYX" if masks.ndim == 3 else "TZYX"
        table = _track_table(masks, arrays["tracks"], arrays["confidence"], axes)
        return Contents(table, image_from_array(masks, axes), labels=True)
    if kind == "class":
        boxes = arrays["boxes"]
        axes = found.about.get("box_axes", "ZYX"[-boxes.shape[-1] :])
        table = _class_table(arrays["probabilities"], boxes, arrays["numbers"], found.classes, axes)
        return Contents(table, None, labels=False)
    values = arrays["image"]
    axes = _axes(values.ndim - 1, selection)
    stored = image_from_array(values, "C" + axes) if "T" not in axes else _frames_first(values, axes)
    return Contents(ObjectsTable(columns=[], rows=[]), stored, labels=False)


def _axes(dimensions: int, selection: Selection) -> str:
    """Return the axes of labels: of three, the first one is time if each frame was predicted."""
    if dimensions == 3:
        return "TYX" if selection.frame == EACH and selection.plane not in (EACH, STITCH) else "ZYX"
    return "TZYX"[-dimensions:]


def _frames_first(values: NDArray[Any], axes: str) -> Image:
    return image_from_array(np.moveaxis(values, 0, 1), f"TC{axes[1:]}")


def _label_table(labels: NDArray[Any], confidence: NDArray[Any], axes: str) -> ObjectsTable:
    columns = ["label", *axes.lower(), "area"]
    numbers, areas, centres = _measured(labels)
    rows: list[list[Cell]] = [
        [number, *_rounded(centre), area] for number, centre, area in zip(numbers, centres, areas, strict=True)
    ]
    if len(confidence):
        columns.append("confidence")
        rows = [[*row, *_rounded([confidence[number]])] for row, number in zip(rows, numbers, strict=True)]
    return ObjectsTable(columns=columns, rows=rows)


def _track_table(masks: NDArray[Any], tracks: NDArray[Any], confidence: NDArray[Any], axes: str) -> ObjectsTable:
    """Return a row for each track in each frame."""
    parents = {int(number): int(parent) or None for number, _, _, parent in tracks}
    sure = {int(row[0]): _rounded([value])[0] for row, value in zip(tracks, confidence, strict=False)}
    rows: list[list[Cell]] = []
    for frame, mask in enumerate(masks):
        numbers, areas, centres = _measured(mask)
        rows += [
            [number, frame, *_rounded(centre), area, parents.get(number), sure.get(number)]
            for number, centre, area in zip(numbers, centres, areas, strict=True)
        ]
    return ObjectsTable(columns=["label", "t", *axes[1:].lower(), "area", "parent", "confidence"], rows=rows)


def _class_table(
    probabilities: NDArray[Any], boxes: NDArray[Any], numbers: NDArray[Any], classes: Sequence[str], axes: str
) -> ObjectsTable:
    low, high = [f"{axis}min" for axis in axes.lower()], [f"{axis}max" for axis in axes.lower()]
    best = probabilities.argmax(axis=1) if len(probabilities) else []
    rows: list[list[Cell]] = [
        [int(number), *_rounded(box.mean(axis=0)), classes[kind], *_rounded([row[kind]]), *_rounded(box.ravel())]
        for number, box, kind, row in zip(numbers, boxes, best, probabilities, strict=True)
    ]
    return ObjectsTable(columns=["label", *axes.lower(), "class", "probability", *low, *high], rows=rows)


def _measured(labels: NDArray[Any]) -> tuple[list[int], list[int], list[list[float]]]:
    """Return number, area in pixels and centroid of each object, in the order of the numbers."""
    places = np.nonzero(labels)
    values = labels[places]
    found, position = np.unique(values, return_inverse=True)
    areas = np.bincount(position, minlength=len(found))
    sums = [np.bincount(position, weights=place, minlength=len(found)) for place in places]
    centres = np.stack(sums, axis=1) / areas[:, None] if len(found) else np.zeros((0, labels.ndim))
    return found.tolist(), areas.tolist(), centres.tolist()


def _rounded(values: Any) -> list[Cell]:
    """Return numbers with six significant digits; None if not finite."""
    return [float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None for value in np.asarray(values, np.float64)]
