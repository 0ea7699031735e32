"""Check of masks of objects and of classes, 2D and 3D."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from cytoray_analysis.bundle import TaskChoice
from cytoray_analysis.errors import ImageError
from cytoray_analysis.images import Image
from cytoray_analysis.images.label_values import MOST_OBJECTS, as_labels
from cytoray_analysis.mask_fit import measure_fit
from cytoray_analysis.numbering import dense_numbers
from cytoray_services.datasets.check.class_masks import examine_classes, holds_classes
from cytoray_services.datasets.check.files import hash_pixels, read_pixels, size_of
from cytoray_services.datasets.check.findings import Facts, Finding, name_in, shorten
from cytoray_services.datasets.check.images import Examined, open_truth, read_item_image, warned
from cytoray_services.datasets.check.known import find_cut, read_known
from cytoray_services.datasets.check.looks import Look, contrast_of, look_of_mask
from cytoray_services.datasets.dataset import Dataset, Item

_COVERING = 0.5  # share of an image above which an object may be its background


def examine_labelled(item: Item, dataset: Dataset, task: TaskChoice | None = None) -> Facts:
    """Return the facts of an image and its mask; `task` says whether its numbers are classes."""
    examined = read_item_image(item, dataset)
    if not isinstance(examined, Examined):
        return examined
    facts = examined.facts
    opened = open_truth(item, dataset, "mask", examined.image.axes, labels=True)
    if isinstance(opened, Finding):
        return replace(facts, findings=(*facts.findings, opened))
    mask, name = opened
    found = list(_refuse_form(mask, name, facts.shape, name_in(dataset, item.image)))
    labels = None if found else _read_labels(mask, name)
    if isinstance(labels, Finding):
        found.append(labels)
    if labels is None or isinstance(labels, Finding):
        return replace(facts, findings=(*facts.findings, *found))
    pixels = _channels(examined)
    known = read_known(item, dataset, examined.image.axes, labels.shape)
    if isinstance(known, Finding):
        return replace(facts, findings=(*facts.findings, known))
    classes = task if task is not None and holds_classes(task) else None
    judged, more = labels, list[Finding]()
    if known is not None and item.known is not None:
        if classes is None:
            more += find_cut(labels, known, name_in(dataset, item.known))
        facts = replace(facts, known=float(known.mean()))
        if not known.any():
            return replace(facts, findings=(*facts.findings, *warned(mask, name)))
        # Objects that are not labelled, because nothing is known there, would look like a mask that does not fit.
        box = _box_of(known)
        judged, labels, pixels = labels[known], np.where(known, labels, 0)[box], pixels[(slice(None), *box)]
    if classes is not None:
        facts, others = examine_classes(judged, name, facts, classes)
        more += others
    else:
        more += check_labels(labels, name)
    fit = None if pixels.min() == pixels.max() else measure_fit(pixels, labels)
    if facts.look is not None:
        measures = {**facts.look.measures, **contrast_of(pixels, labels)}
        facts = replace(facts, look=Look(facts.look.traits, measures))
    return replace(
        facts,
        findings=(*facts.findings, *warned(mask, name), *more),
        fit=fit,
        truth_look=look_of_mask(mask, labels, None if fit is None else fit.as_it_is),
        truth_digest=hash_pixels("", [labels.astype(np.int64)]) if labels.any() else "",
    )


def _box_of(known: np.ndarray) -> tuple[slice, ...]:
    """Return the smallest box around all known pixels."""
    places = [np.flatnonzero(known.any(axis=tuple(set(range(known.ndim)) - {axis}))) for axis in range(known.ndim)]
    return tuple(slice(int(at[0]), int(at[-1]) + 1) for at in places)


def _channels(examined: Examined) -> np.ndarray:
    pixels = examined.pixels
    return pixels if "C" in examined.image.axes else pixels[np.newaxis]


def _read_labels(mask: Image, name: str) -> np.ndarray | Finding:
    values = read_pixels(mask, name)
    if isinstance(values, Finding):
        return values
    try:
        return as_labels(values, name)
    except ImageError as error:
        negative = values.dtype.kind != "c" and float(values.min(initial=0)) < 0
        problem = error.message.removeprefix(f"{name}: ")
        return Finding("error", name, problem, error.hint or "", "negative-mask" if negative else "float-mask")


def _refuse_form(mask: Image, name: str, expected: tuple[int, ...], image: str) -> Iterator[Finding]:
    if mask.spatial_shape != expected:
        problem = f"its size is {size_of(mask.spatial_shape)}, that of its image {image} {size_of(expected)}"
        yield Finding("error", name, problem, "Crop or resample both together.", "size-mismatch")
    elif mask.axes not in ("YX", "ZYX"):
        problem = f"expected a mask with axes YX or ZYX, got {mask.axes} = {mask.shape}"
        yield Finding("error", name, problem, "Store one integer per pixel, not colours.", "wrong-axes")


def check_labels(labels: np.ndarray, name: str) -> Iterator[Finding]:
    """Find problems in the numbers of a mask of objects, which are integers from 0."""
    dense, names = dense_numbers(labels)
    areas = np.bincount(dense.ravel())
    objects = np.flatnonzero(areas[1:]) + 1
    if len(objects) > MOST_OBJECTS:
        problem = f"expected at most {MOST_OBJECTS} objects in a mask, got {len(objects)}"
        remedy = "Divide image and mask into smaller ones, and number the objects of each from 1."
        yield Finding("error", name, problem, remedy, "too-many-ids")
    elif not len(objects):
        yield Finding("warning", name, "it contains no object", "Check that it was exported completely.", "empty-mask")
    elif covering := _covering(dense, areas, objects):
        share = areas[covering] / dense.size
        zero = "no pixel is 0, and " if not areas[0] else ""
        problem = f"{zero}the object numbered {names[covering]} covers {share:.0%} of the image, from side to side"
        remedy = "If it is the background, set it to 0; otherwise crop the image with some background around it."
        yield Finding("warning", name, problem, remedy, "background-not-zero")
    elif scattered := [int(names[number]) for number in scattered_ids(dense)]:
        problem = f"{len(scattered)} numbers stand for pieces far apart (such as {shorten(scattered)})"
        remedy = "Give each object its own number, for example with skimage.measure.label."
        yield Finding("warning", name, problem, remedy, "fragmented-ids")


def _covering(dense: np.ndarray, areas: np.ndarray, objects: np.ndarray) -> int:
    """Return the number of an object that covers most of an image and touches all its sides; 0 without one."""
    largest = int(objects[areas[objects].argmax()])
    if areas[largest] < _COVERING * dense.size:
        return 0
    sides = (dense[..., 0, :], dense[..., -1, :], dense[..., :, 0], dense[..., :, -1])
    return largest if all((side == largest).any() for side in sides) else 0


def scattered_ids(labels: np.ndarray) -> list[int]:
    """Return the numbers with two pieces that are further apart than the length of the larger one."""
    from scipy.ndimage import find_objects
    from skimage.measure import label

    pieces: np.ndarray = label(labels, connectivity=labels.ndim)  # type: ignore[no-untyped-call]
    boxes = find_objects(pieces)
    if len(boxes) == np.count_nonzero(np.bincount(labels[labels > 0].astype(np.int64))):
        return []
    owners: dict[int, list[tuple[slice, ...]]] = {}
    for number, box in enumerate(boxes, start=1):
        inside = pieces[box] == number
        if np.count_nonzero(inside) > 4:  # specks are not objects
            owners.setdefault(int(labels[box][inside][0]), []).append(box)
    return sorted(number for number, parts in owners.items() if any(_far(parts[0], part) for part in parts[1:]))


def _far(one: tuple[slice, ...], other: tuple[slice, ...]) -> bool:
    gaps: list[int] = [max(a.start - b.stop, b.start - a.stop, 0) for a, b in zip(one, other, strict=True)]
    lengths: list[int] = [part.stop - part.start for part in (*one, *other)]
    return max(gaps) > max(lengths)
