"""Linking without learning: first what overlaps, then what is near. The linker to beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.tracking.candidates import FRAME_FEATURES, OBJECT_FEATURES, PAIR_FEATURES

_NEVER = -20.0


def overlap_then_distance(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Judge candidates by rule, in place of a network.

    A link is the likelier the more two objects overlap, and where none does, the nearer they are: up to a cell's
    length. A division is likely where both daughters overlap the mother, or lie within two radii of her, and where
    no other object of the earlier frame overlaps them.

    Parameters
    ----------
    features
        (F, N) float32, see :func:`~cytoray_analysis.tracking.candidates.feature_names`.

    Returns
    -------
    numpy.ndarray
        (2, N) float32 logits of links and divisions.
    """
    pairs = len(PAIR_FEATURES)
    near, far = features[:pairs], features[pairs : 2 * pairs]
    frame = features[2 * pairs + 3 * len(OBJECT_FEATURES) :][: len(FRAME_FEATURES)]
    link = _affinity(near) - 2.0 * frame[0]
    both = np.minimum(_affinity(near), _affinity(far))
    # What another object overlaps, or lies nearer to, is that object's.
    taken = np.maximum(_elsewhere(near), _elsewhere(far))
    division = np.where(frame[1] > 0, both - taken, _NEVER)
    return np.stack((link, division)).astype(np.float32)


def _affinity(pair: NDArray[np.float32]) -> NDArray[np.float32]:
    overlap, distance = pair[PAIR_FEATURES.index("overlap")], pair[PAIR_FEATURES.index("distance in radii")]
    return np.asarray(np.where(overlap > 0, 2.0 + 6.0 * overlap, 2.0 - distance))


def _elsewhere(pair: NDArray[np.float32]) -> NDArray[np.float32]:
    other = pair[PAIR_FEATURES.index("overlap of the target with another source")]
    closer = pair[PAIR_FEATURES.index("distance over that of the next source")]
    return np.asarray(8.0 * other + 4.0 * np.maximum(closer, 0.0))
