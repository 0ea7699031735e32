"""Objects of a volume from those of its planes: what overlaps from one plane to the next is one object."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.tasks.overlap import overlap

SHARED = 0.5
"""Least share of the smaller of two areas in neighbouring planes that lies in the larger one.

Not of their union (as the ``stitch_threshold`` of Cellpose): the first and the last plane of a round object are much
smaller than the next, and would be objects of their own.
"""


def stitch(planes: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the object of the volume that each object of a plane belongs to.

    An object goes on in at most one object of the next plane. Pairs that share at least :data:`SHARED` are taken in
    order of their IoU. An object that is missing in a plane ends there.

    Parameters
    ----------
    planes
        (Z, Y, X) labels, 0 background; no number is in two planes.

    Returns
    -------
    numpy.ndarray
        (largest number + 1,) int64: 1 to n in the order of first planes, then numbers; 0 for background and unused
        numbers.
    """
    of = np.arange(int(planes.max(initial=0)) + 1, dtype=np.int64)
    for before, after in itertools.pairwise(planes):
        both = overlap(after, before)
        near = both.cover.max(axis=1, initial=0.0) >= SHARED
        both = replace(both, pairs=both.pairs[near], iou=both.iou[near], cover=both.cover[near])
        for source, target in both.pairs[both.matches(0.0)].tolist():
            of[target] = of[source]
    used = np.zeros(len(of), bool)
    used[np.unique(planes)] = True
    used[0] = False
    joined = np.zeros(len(of), np.int64)
    joined[used] = np.unique(of[used], return_inverse=True)[1] + 1
    return joined


def joined_confidence(
    confidence: NDArray[np.float32], objects: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the mean confidence of the parts of each object of :func:`stitch`, weighted by their pixels.

    Parameters
    ----------
    confidence
        (n + 1,) of each object of a plane; entry 0 is 0.
    objects
        (n + 1,) as :func:`stitch` returns it.
    sizes
        (n + 1,) pixels of each object of a plane.
    """
    weights = np.where(objects > 0, sizes, 0)
    total = np.bincount(objects, weights=weights)
    sums = np.bincount(objects, weights=weights * confidence)
    return np.divide(sums, total, out=np.zeros_like(sums), where=total > 0).astype(np.float32)
