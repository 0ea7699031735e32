"""What went wrong with predicted objects, as people speak of it: split, merged, missed, invented.

One object *holds* another when at least half of the other lies within it, the rule by which the Cell Tracking
Challenge assigns objects (Matula et al., PLoS ONE 10, e0144959 (2015)); asked in both directions here. Unlike a
threshold on IoU, as in Caicedo et al., Cytometry A 95, 952 (2019), from where the names come, it sees a small cell
swallowed by a large one as merged, and a crumb of a large one as a split.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.tasks.overlap import Overlap

ERRORS = ("split", "merged", "missed", "invented")


def count_errors(overlaps: Sequence[Overlap]) -> dict[str, int]:
    """Count the errors of all images together.

    Returns
    -------
    dict
        ``split``: true objects that hold several predicted ones; ``merged``: predicted objects that hold several
        true ones; ``missed``: true objects that no predicted one holds, or lies in; ``invented``: predicted objects
        that no true one holds, or lies in. An object matched at an IoU above 0.5 is neither missed nor invented.
    """
    counts = dict.fromkeys(ERRORS, 0)
    for item in overlaps:
        in_answer, in_truth = item.cover[:, 0] >= 0.5, item.cover[:, 1] >= 0.5
        counts["split"] += _repeated(item.pairs[in_truth, 0])
        counts["merged"] += _repeated(item.pairs[in_answer, 1])
        related = item.pairs[in_answer | in_truth]
        counts["missed"] += item.truths - len(np.unique(related[:, 0]))
        counts["invented"] += item.answers - len(np.unique(related[:, 1]))
    return counts


def _repeated(ids: NDArray[np.int64]) -> int:
    """Return how many ids occur more than once."""
    return int(np.count_nonzero(np.unique(ids, return_counts=True)[1] > 1))
