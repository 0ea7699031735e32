"""Features of the images of each split, and images of two splits with the same content.

Features are few and simple, so a difference can be described in words. Two images are twins when their fine structure
(noise and texture, which no two exposures share) is the same except for brightness, rotation and mirroring.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cytoray_analysis.fine_structure import Plane
from cytoray_services.datasets import Dataset, Item
from cytoray_training.diagnosis.facts import Twin
from cytoray_training.run.validation import evenly_chosen

MOST_IMAGES = 256
_ALIKE = 0.95


def image_features(plane: Plane) -> dict[str, float]:
    """Describe a plane (Y, X), the mean over channels, by a few features in its own units.

    Returns
    -------
    dict
        ``mean``, ``contrast`` (99th minus 1st percentile), ``background`` (20th percentile), ``sharpness`` (share of
        the contrast in fine structure), ``shape`` (share of the contrast in coarse structure).
    """
    low, back, high = np.percentile(plane, (1, 20, 99))
    contrast = float(high - low)
    smooth = gaussian_filter(plane, 1.0)
    coarse = gaussian_filter(plane, 4.0)
    unit = max(contrast, 1e-12)
    return {
        "mean": float(plane.mean()),
        "contrast": contrast,
        "background": float(back),
        "sharpness": float((plane - smooth).std()) / unit,
        "shape": float((smooth - coarse).std()) / unit,
    }


def object_features(truth: Any) -> dict[str, float]:
    """Describe the objects of a label image: ``objects`` per 10,000 known pixels, ``size`` in pixels; else nothing."""
    if not isinstance(truth, np.ndarray) or truth.dtype.kind not in "iu" or truth.ndim < 2:
        return {}
    sizes = np.unique(truth[truth > 0], return_counts=True)[1]
    known = np.count_nonzero(truth >= 0)
    if not known:
        return {}
    return {"objects": 1e4 * len(sizes) / known} | ({"size": float(np.median(sizes))} if len(sizes) else {})


def chosen_images(dataset: Dataset, split: str) -> list[tuple[Item, ...]]:
    """Return a few hundred evenly spaced images of a split."""
    images = dataset.split(split).images if split in dataset.splits else []
    return evenly_chosen(images, min(len(images), MOST_IMAGES))


def find_twins(
    train: Sequence[tuple[str, NDArray[np.float32]]], val: Sequence[tuple[str, NDArray[np.float32]]]
) -> tuple[Twin, ...]:
    """Find validation images that repeat a training image, most similar first.

    Parameters
    ----------
    train, val
        File and :func:`fine_structure` of each image.
    """
    if not train or not val:
        return ()
    known = np.stack([detail.ravel() for _, detail in train])
    twins = []
    for name, detail in val:
        views = [np.rot90(side, turns).ravel() for side in (detail, detail.T) for turns in range(4)]
        similarity = (known @ np.stack(views).T).max(axis=1)
        best = int(similarity.argmax())
        if similarity[best] >= _ALIKE:
            twins.append(Twin(train[best][0], name, float(min(similarity[best], 1.0))))
    return tuple(sorted(twins, key=lambda twin: -twin.similarity))
