"""Data sets in which a region of each image is known, and the rest is not."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.images import read_labels, write_labels
from cytoray_services.datasets import make_segmentation


def make_known(
    folder: Path, *, images: int = 12, size: int = 96, scrambled: int | None = None, known: bool = True
) -> Path:
    """Make a data set with a manifest; the labels of the unknown pixels are noise if `scrambled` is its seed."""
    made = make_segmentation(folder, images=images, size=size, seed=3)
    rows = []
    for number, item in enumerate(made.items):
        assert item.truth is not None
        labels = read_labels(item.truth)
        inside = known_of(labels)
        if scrambled is not None:
            noise = np.random.default_rng((scrambled, number)).integers(0, 90, labels.shape)
            write_labels(item.truth, np.where(inside, labels, noise).astype(np.uint16))
        mask = folder / "known" / item.image.name
        mask.parent.mkdir(exist_ok=True)
        write_labels(mask, inside.astype(np.uint16))
        row = {"image": f"images/{item.image.name}", "mask": f"masks/{item.truth.name}", "split": item.split}
        rows.append(row | ({"known": f"known/{mask.name}"} if known else {}))
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return folder


def known_of(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return the left half of an image, with whole objects: those that lie in it by at least half."""
    inside = np.zeros(labels.shape, bool)
    inside[:, : labels.shape[1] // 2] = True
    for label in np.unique(labels[labels > 0]):
        inside[labels == label] = 2 * (inside & (labels == label)).sum() >= (labels == label).sum()
    return inside
