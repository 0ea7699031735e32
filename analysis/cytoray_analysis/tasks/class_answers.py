"""The answer of a classification: class probabilities of cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.cells import Cells


@dataclass(frozen=True, eq=False)
class Classes:
    """Class probabilities of the cells of an image.

    Attributes
    ----------
    names
        The K classes, in the order of the columns.
    probabilities
        (N, K) float32, rows sum to one.
    cells
        Where the N cells are.
    """

    names: tuple[str, ...]
    probabilities: NDArray[np.float32]
    cells: Cells

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def values(self) -> NDArray[np.float32]:
        """The probabilities, as :class:`~cytoray_analysis.cells.CellValues` calls them."""
        return self.probabilities

    @property
    def labels(self) -> tuple[str, ...]:
        """The most probable class of each cell."""
        return tuple(self.names[index] for index in self.probabilities.argmax(axis=1))

    def top(self, k: int) -> list[list[tuple[str, float]]]:
        """Return the `k` most probable classes of each cell with their probabilities, most probable first.

        Classes of equal probability come in the order of `names`; with fewer than `k` classes all are returned.
        """
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :k]
        return [
            [(self.names[index], float(row[index])) for index in best]
            for row, best in zip(self.probabilities, order, strict=True)
        ]
