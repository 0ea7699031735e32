"""The check of one image, whatever its truth is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cytoray_analysis.images import Image
from cytoray_services.datasets.check.files import hash_pixels, open_file, read_pixels
from cytoray_services.datasets.check.findings import Facts, Finding, name_in
from cytoray_services.datasets.dataset import Dataset, Item


@dataclass(frozen=True)
class Examined:
    """An image that could be read, its pixels, and the facts so far."""

    image: Image
    pixels: np.ndarray
    facts: Facts


def examine_image(item: Item, dataset: Dataset) -> Facts:
    """Return the facts of an image whose truth is no file."""
    examined = read_item_image(item, dataset)
    return examined.facts if isinstance(examined, Examined) else examined


def read_item_image(item: Item, dataset: Dataset) -> Examined | Facts:
    """Read the image of an item; facts alone where that fails."""
    name = name_in(dataset, item.image)
    image = open_file(item.image, name)
    if isinstance(image, Finding):
        return Facts((image,))
    pixels = read_pixels(image, name)
    if isinstance(pixels, Finding):
        return Facts((pixels,), image.axes)
    findings = []
    if pixels.min() == pixels.max():
        problem = f"every pixel has the value {pixels.min()}"
        remedy = "Remove the image unless empty fields are wanted."
        findings.append(Finding("warning", name, problem, remedy, "constant-image"))
    facts = Facts(
        findings=tuple(findings),
        axes=image.axes,
        channels=image.size("C"),
        shape=image.spatial_shape,
        digest=hash_pixels(image.axes, [pixels]),
    )
    return Examined(image, pixels, facts)


def open_truth(item: Item, dataset: Dataset, what: str) -> tuple[Image, str] | Finding:
    """Open the truth file of an item, or say why there is none; `what` it should be is for the remedy."""
    if item.truth is None:
        name = name_in(dataset, item.image)
        return Finding("error", name, "it has no truth", f"Name its {what}.", "missing-file")
    name = name_in(dataset, item.truth)
    truth = open_file(item.truth, name)
    return truth if isinstance(truth, Finding) else (truth, name)
