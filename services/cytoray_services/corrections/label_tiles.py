"""Labels as tiles, and the table of objects."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import RequestError
from cytoray_services.corrections.corrected import Corrected
from cytoray_services.corrections.records import Level, ObjectTable

TILE = 256


def levels_of(width: int, height: int) -> tuple[Level, ...]:
    """Return the size of each level: every second pixel of the level before, until one tile is enough."""
    levels = [Level(width=width, height=height)]
    while max(width, height) > TILE:
        width, height = -(-width // 2), -(-height // 2)
        levels.append(Level(width=width, height=height))
    return tuple(levels)


def label_tile(labels: NDArray[np.uint32], level: int, column: int, row: int, *, t: int, z: int) -> NDArray[np.uint32]:
    """Return one tile: at most 256 × 256 labels, cut at the right and the lower edge.

    Parameters
    ----------
    labels
        (T, Z, Y, X).
    level
        Every 2 ** `level`-th pixel is shown, so that no label appears that is not there.

    Raises
    ------
    RequestError
        There is no such frame, plane, level or tile.
    """
    levels = levels_of(labels.shape[3], labels.shape[2])
    known = levels[min(level, len(levels) - 1)]
    for name, value, length in (
        ("t", t, labels.shape[0]),
        ("z", z, labels.shape[1]),
        ("level", level, len(levels)),
        ("column", column, -(-known.width // TILE)),
        ("row", row, -(-known.height // TILE)),
    ):
        if not 0 <= value < length:
            raise RequestError(f"expected {name} from 0 to {length - 1}, got {value}", field=name)
    step = 2**level
    down, right = (slice(at * TILE * step, (at + 1) * TILE * step, step) for at in (row, column))
    return np.ascontiguousarray(labels[t, z, down, right], "<u4")


def object_table(corrected: Corrected) -> ObjectTable:
    """Return all objects: who made each, whether it was edited, its class, confidence, pixels and centre."""
    labels = np.array(sorted(corrected.objects), np.int64)
    number = np.zeros(corrected.highest + 1, np.int64)
    number[labels] = np.arange(len(labels))
    sums = np.zeros((5, len(labels)))
    for t, frame in enumerate(corrected.labels):
        for z, plane in enumerate(frame):
            y, x = np.nonzero(plane)
            own = number[plane[y, x]]
            counts = np.bincount(own, minlength=len(labels))
            sums[:3] += counts, t * counts, z * counts
            sums[3:] += [np.bincount(own, weights=at, minlength=len(labels)) for at in (y, x)]
    centres = np.round(sums[1:] / np.maximum(sums[0], 1), 2)
    rows = tuple(
        (
            label,
            one.made,
            one.by,
            corrected.edited(label),
            one.class_name,
            one.confidence,
            int(area),
            *(float(place) for place in centre),
        )
        for (label, one), area, centre in zip(sorted(corrected.objects.items()), sums[0], centres.T, strict=True)
    )
    return ObjectTable(
        columns=("label", "made", "by", "edited", "class", "confidence", "area", "t", "z", "y", "x"), rows=rows
    )
