"""From a movie and its masks to a lineage, frame by frame: measure, describe, judge, link."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import AxesError
from cytoray_analysis.images import Image, IntensityScaling, intensity_map, sample_for_statistics
from cytoray_analysis.tracking.candidates import find_candidates
from cytoray_analysis.tracking.frames import FrameStack, as_movie, frame_of
from cytoray_analysis.tracking.judged import JudgedFrame, JudgedMovie
from cytoray_analysis.tracking.lineage import Lineage
from cytoray_analysis.tracking.linker import link
from cytoray_analysis.tracking.objects import Objects, measure

Scorer = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Ruler:
    """How a movie's pixels become measurements: intensity range, and the shape of a pixel relative to X."""

    offset: float
    scale: float
    spacing: tuple[float, ...]

    def measure(self, mask: NDArray[Any], image: NDArray[Any]) -> Objects:
        """Measure the objects of a frame."""
        return measure(mask, image, offset=self.offset, scale=self.scale, spacing=self.spacing)


def ruler_of(movie: Image) -> Ruler:
    """Fit the range of intensities on a sample of the movie, the same however the movie is then cut."""
    sample = sample_for_statistics(movie, at_most_pixels=2**21)
    # As pixels without places: the objects are given, so that it cannot be mere noise.
    offset, scale = intensity_map(sample.reshape(len(sample), -1), IntensityScaling(), None)
    sizes = movie.pixel_size or {}
    across = sizes.get("X", 1.0)
    spacing = tuple(sizes.get(axis, across) / across for axis in movie.axes[1:])
    return Ruler(float(np.float32(offset[0])), float(np.float32(scale[0])), spacing)


def judge_movie(movie: Image, masks: Image, scorer: Scorer, *, gap: int = 1) -> JudgedMovie:
    """Measure a movie's objects and have their candidates judged, frame by frame as the result is gone through.

    Parameters
    ----------
    movie, masks
        Axes TYX or TZYX, of one shape. The numbers of the masks carry no meaning across frames.
    scorer
        The network: features (F, N) float32 to logits (channels, N).
    gap
        Most frames that a link may skip.

    Raises
    ------
    AxesError
        Movie and masks differ in their axes or lengths.
    """
    movie, masks = as_movie(movie), as_movie(masks)
    if movie.shape != masks.shape:
        raise AxesError(
            f"expected masks of the movie's shape {movie.shape} ({movie.axes}), got {masks.shape} ({masks.axes})",
            field="masks",
            hint="one mask per frame, of the frame's size",
        )

    def frames() -> Iterator[JudgedFrame]:
        ruler = ruler_of(movie)
        before: list[Objects] = []
        for index in range(movie.shape[0]):
            objects = ruler.measure(frame_of(masks, index), frame_of(movie, index))
            found, outputs = None, None
            if before:
                candidates = find_candidates(index, before, objects)
                outputs = np.asarray(scorer(candidates.features), dtype=np.float32)
                found = candidates.without_features()
            yield JudgedFrame(objects.labels, objects.centroid, objects.box, found, outputs)
            before = [objects, *before][: gap + 1]

    stack = FrameStack(lambda index: frame_of(masks, index), masks.shape, masks.dtype)
    return JudgedMovie(movie.shape, frames(), gap, stack)


def link_movie(
    movie: Image, masks: Image, scorer: Scorer, parameters: Mapping[str, float], *, gap: int = 1, window: int = 32
) -> Lineage:
    """Link the objects of a movie into a lineage.

    Memory holds a few frames, the open decisions of about `window` frames, and about 100 bytes per object that was
    seen. See :func:`~cytoray_analysis.tracking.linker.link` for `parameters` and `window`.
    """
    return link(judge_movie(movie, masks, scorer, gap=gap), parameters, window=window)
