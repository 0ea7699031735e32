"""The pixels whose labels are known, from the finished regions of an image."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cytoray_services.corrections.edits import Region
from cytoray_services.corrections.shapes import inside_outline


def known_pixels(labels: NDArray[np.uint32], regions: Iterable[Region]) -> NDArray[np.bool_]:
    """Return the pixels whose labels are known.

    These are the pixels of the regions. An object that the border of a region cuts counts whole: all its pixels in a
    frame are known if at least half of them lie in the regions, otherwise all of them are unknown. So training and
    scores see no part of an object as if it were an object.

    Parameters
    ----------
    labels
        (T, Z, Y, X), 0 for background.
    regions
        The finished regions.

    Returns
    -------
    numpy.ndarray
        (T, Z, Y, X) bool.
    """
    known = np.zeros(labels.shape, np.bool_)
    for region in regions:
        frames, planes = (slice(None) if at is None else slice(at, at + 1) for at in (region.t, region.z))
        if region.outline is None:
            known[frames, planes] = True
        else:
            patch = inside_outline(region.outline, labels.shape[2:])
            known[(frames, planes, *patch.place)] |= patch.inside
    for frame, inside in zip(labels, known, strict=True):
        if inside.any() and not inside.all():
            _keep_whole(frame, inside)
    return known


def _keep_whole(frame: NDArray[np.uint32], inside: NDArray[np.bool_]) -> None:
    """Make all pixels of each object of a frame known, or all unknown."""
    highest = int(frame.max())
    if not highest:
        return
    there = frame > 0
    size = np.bincount(frame[there], minlength=highest + 1)
    within = np.bincount(frame[there & inside], minlength=highest + 1)
    inside[there] = (2 * within >= size)[frame[there]]
