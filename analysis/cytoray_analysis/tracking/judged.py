"""What a linker decides on: the objects of a movie, and what a network says of the ways to explain them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.tracking.candidates import Candidates
from cytoray_analysis.tracking.frames import FrameStack


@dataclass(frozen=True, eq=False)
class JudgedFrame:
    """The objects of a frame, and the candidates that explain them by objects of earlier frames.

    Parameters
    ----------
    labels, centroid, box
        Of the n objects, as in :class:`~cytoray_analysis.tracking.objects.Objects`.
    candidates
        ``None`` for the first frame. Their features are not needed any more.
    outputs
        (2, N) float32 logits, that a link is one and that a division is one; ``None`` for the first frame.
    """

    labels: NDArray[np.int64]
    centroid: NDArray[np.float64]
    box: NDArray[np.int64]
    candidates: Candidates | None = None
    outputs: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class JudgedMovie:
    """The frames of a movie, judged.

    Parameters
    ----------
    shape
        Lengths of T and of the spatial axes.
    frames
        An iterator judges a frame when it is reached and can be gone through once; a tuple can be linked again, with
        other parameters.
    gap
        Most frames that a link may skip.
    masks
        The movie of masks in which `labels` are.
    """

    shape: tuple[int, ...]
    frames: Iterator[JudgedFrame] | tuple[JudgedFrame, ...]
    gap: int
    masks: FrameStack | None = None

    def held(self) -> JudgedMovie:
        """Return the movie with all its frames judged and held."""
        return JudgedMovie(self.shape, tuple(self.frames), self.gap, self.masks)
