"""Check of one image, for every kind of truth."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cytoray_analysis.errors import InputError
from cytoray_analysis.images import Image
from cytoray_analysis.images.choose import follow, projected
from cytoray_analysis.images.label_values import lossy_codec
from cytoray_analysis.selection import LARGEST
from cytoray_services.datasets.check.copies import detail_of
from cytoray_services.datasets.check.files import hash_pixels, open_file, read_pixels
from cytoray_services.datasets.check.findings import Facts, Finding, name_in
from cytoray_services.datasets.check.looks import look_of_image
from cytoray_services.datasets.chosen import chosen_masks, one_stack
from cytoray_services.datasets.dataset import Dataset, Item

_LOSSLESS = "Export the mask again as PNG, or as TIFF without JPEG compression; this one cannot be repaired."


@dataclass(frozen=True)
class Examined:
    """A readable image, its pixels, and its facts."""

    image: Image
    pixels: np.ndarray
    facts: Facts


def examine_image(item: Item, dataset: Dataset) -> Facts:
    """Return the facts of an image whose truth is not a file."""
    examined = read_item_image(item, dataset)
    return examined.facts if isinstance(examined, Examined) else examined


def read_item_image(item: Item, dataset: Dataset) -> Examined | Facts:
    """Read the image of an item; return only facts if that fails."""
    name = name_in(dataset, item.image)
    selection = dataset.selection
    image = open_file(item.image, name, selection)
    if isinstance(image, Finding):
        return Facts((image,))
    image = one_stack(image, selection)
    axes = image.axes.replace("Z", "") if selection.each else image.axes
    pixels = read_pixels(image, name)
    if isinstance(pixels, Finding):
        return Facts((pixels,), axes)
    findings = warned(image, name)
    if pixels.min() == pixels.max():
        problem = f"every pixel has the value {pixels.min()}"
        remedy = "Remove the image, unless empty fields are intended."
        findings.append(Finding("warning", name, problem, remedy, "constant-image"))
    facts = Facts(
        findings=tuple(findings),
        axes=axes,
        channels=image.size("C"),
        shape=image.spatial_shape,
        digest=hash_pixels(image.axes, [pixels]),
        detail=None if pixels.min() == pixels.max() else detail_of(replace(image, data=pixels)),
        look=look_of_image(image, pixels),
    )
    return Examined(image, pixels, facts)


def open_truth(
    item: Item, dataset: Dataset, what: str, axes: str, *, labels: bool = False
) -> tuple[Image, str] | Finding:
    """Open the truth file of an item, or return a finding; `what` is its expected kind, for the remedy.

    `axes` are those of its image, after the selection; `labels` says whether it contains labels.
    """
    if item.truth is None:
        name = name_in(dataset, item.image)
        return Finding("error", name, "it has no truth", f"Add its {what}.", "missing-file")
    name = name_in(dataset, item.truth)
    selection = dataset.selection
    codec = lossy_codec(item.truth) if labels else None
    if codec is not None:
        problem = f"it is stored as {codec}, a lossy format that changes the numbers of a mask"
        return Finding("error", name, problem, _LOSSLESS, "lossy-mask")
    truth = open_file(item.truth, name, labels=labels)
    if isinstance(truth, Finding):
        image = name_in(dataset, item.image)
        problem = f"{truth.problem}, the {what} of {image}"
        return replace(truth, problem=problem) if truth.code == "missing-file" else truth
    try:
        if labels:
            return one_stack(chosen_masks(truth, selection, axes), selection), name
        followed = follow(truth, selection, axes)
        return (projected(followed) if selection.plane == LARGEST else one_stack(followed, selection)), name
    except InputError as error:
        return Finding("error", name, error.message, error.hint or "", "wrong-axes")


def warned(image: Image, name: str) -> list[Finding]:
    """Return the assumptions and omissions of reading an image as findings."""
    remedy = "Check whether this is intended; otherwise export the image again."
    return [Finding("warning", name, one.sentence, remedy, one.code) for one in image.warnings]
