"""The check of instance masks: 2D and 3D."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from cytoray_analysis.images import Image
from cytoray_services.datasets.check.files import read_pixels, size_of
from cytoray_services.datasets.check.findings import Facts, Finding, shorten
from cytoray_services.datasets.check.images import Examined, open_truth, read_item_image
from cytoray_services.datasets.dataset import Dataset, Item

LARGEST_LABEL = int(np.iinfo(np.uint16).max)


def examine_labelled(item: Item, dataset: Dataset) -> Facts:
    """Return the facts of an image and its instance mask."""
    examined = read_item_image(item, dataset)
    if not isinstance(examined, Examined):
        return examined
    opened = open_truth(item, dataset, "mask")
    found = [opened] if isinstance(opened, Finding) else _check_mask(*opened, examined.facts.shape)
    return replace(examined.facts, findings=(*examined.facts.findings, *found))


def _check_mask(mask: Image, name: str, expected: tuple[int, ...]) -> Iterator[Finding]:
    if mask.spatial_shape != expected:
        problem = f"its size is {size_of(mask.spatial_shape)}, that of its image {size_of(expected)}"
        yield Finding("error", name, problem, "Crop or resample both together.", "size-mismatch")
    elif mask.axes not in ("YX", "ZYX"):
        problem = f"a mask has axes YX or ZYX, this one has {mask.axes} = {mask.shape}"
        yield Finding("error", name, problem, "Store one integer per pixel, not colours.", "wrong-axes")
    elif mask.dtype.kind == "f":
        remedy = "Convert it to uint16, one whole number per object; a probability map is no mask."
        yield Finding("error", name, f"a mask holds integers, this one {mask.dtype}", remedy, "float-mask")
    else:
        labels = read_pixels(mask, name)
        yield from [labels] if isinstance(labels, Finding) else check_labels(labels, name)


def check_labels(labels: np.ndarray, name: str) -> Iterator[Finding]:
    """Find what is wrong with the numbers of an integer mask."""
    least, largest = int(labels.min()), int(labels.max())
    if least < 0:
        problem = f"a mask counts objects from 1, this one holds {least}"
        yield Finding("error", name, problem, "Use 0 for background and for what is not to count.", "negative-mask")
    elif largest > LARGEST_LABEL:
        yield _too_many_ids(labels, largest, name)
    elif not largest:
        yield Finding("warning", name, "it holds no object", "Check that it was exported fully.", "empty-mask")
    elif scattered := _scattered_ids(labels):
        problem = f"{len(scattered)} numbers stand for pieces far apart (such as {shorten(scattered)})"
        remedy = "Give each object its own number, for example with skimage.measure.label."
        yield Finding("warning", name, problem, remedy, "fragmented-ids")


def _too_many_ids(labels: np.ndarray, largest: int, name: str) -> Finding:
    count = np.count_nonzero(np.unique(labels))
    problem = f"a mask numbers objects up to {LARGEST_LABEL}, this one has {count} objects numbered up to {largest}"
    remedy = (
        "Number the objects of each image anew from 1, for example with skimage.segmentation.relabel_sequential."
        if count <= LARGEST_LABEL
        else "Cut image and mask into smaller ones, and number the objects of each anew from 1."
    )
    return Finding("error", name, problem, remedy, "too-many-ids")


def _scattered_ids(labels: np.ndarray) -> list[int]:
    """Numbers of which two pieces lie further apart than the larger of them is long."""
    from scipy.ndimage import find_objects
    from skimage.measure import label

    pieces: np.ndarray = label(labels, connectivity=labels.ndim)  # type: ignore[no-untyped-call]
    boxes = find_objects(pieces)
    if len(boxes) == np.count_nonzero(np.bincount(labels[labels > 0].astype(np.int64))):
        return []
    owners: dict[int, list[tuple[slice, ...]]] = {}
    for number, box in enumerate(boxes, start=1):
        inside = pieces[box] == number
        if np.count_nonzero(inside) > 4:  # specks are no objects
            owners.setdefault(int(labels[box][inside][0]), []).append(box)
    return sorted(number for number, parts in owners.items() if any(_far(parts[0], part) for part in parts[1:]))


def _far(one: tuple[slice, ...], other: tuple[slice, ...]) -> bool:
    gaps: list[int] = [max(a.start - b.stop, b.start - a.stop, 0) for a, b in zip(one, other, strict=True)]
    lengths: list[int] = [part.stop - part.start for part in (*one, *other)]
    return max(gaps) > max(lengths)
