"""Movies as stacks of frames that are decoded one at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import AxesError
from cytoray_analysis.images import Image
from cytoray_analysis.images.axes import how_to_choose


@dataclass(frozen=True, eq=False)
class FrameStack:
    """An array (T, spatial…) whose frames are made when they are asked for; nothing is kept.

    Parameters
    ----------
    read
        Gives the pixels of a frame, (spatial…), by its index.
    shape
        Lengths of T and of the spatial axes.
    dtype
        Type of the pixels.
    """

    read: Callable[[int], NDArray[Any]]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __reduce__(self) -> tuple[Any, ...]:
        # What makes a frame may hang on open files and networks: between processes go the frames.
        return held_frames, (self[:],)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, region: int | slice | tuple[int | slice, ...]) -> NDArray[Any]:
        """Decode a region as numpy would slice it; only the frames that it touches are made."""
        first, *rest = region if isinstance(region, tuple) else (region,)
        if not isinstance(first, slice):
            return np.asarray(self.read(range(len(self))[first])[tuple(rest)])
        frames = [self.read(index)[tuple(rest)] for index in range(*first.indices(len(self)))]
        return np.stack(frames) if frames else np.empty((0, *self.shape[1:]), self.dtype)[(slice(None), *rest)]


def held_frames(frames: NDArray[Any]) -> FrameStack:
    """Return frames in memory, (T, spatial…), as a stack."""
    return FrameStack(frames.__getitem__, frames.shape, frames.dtype)


def as_movie(image: Image) -> Image:
    """Arrange an image as frames, axes TYX or TZYX; nothing is decoded.

    Raises
    ------
    AxesError
        It has several channels.
    """
    if image.size("C") > 1:
        raise AxesError(
            f"{image.source}: linking expects one channel, got {image.size('C')} ({', '.join(image.channels)})",
            field="channels",
            hint=f"choose the channel that shows the cells: {how_to_choose('C')}, or its number from 0",
        )
    return image.select("TZYX" if "Z" in image.axes else "TYX")


def frame_of(movie: Image, index: int) -> NDArray[Any]:
    """Decode one frame, (Y, X) or (Z, Y, X), of a movie with axes TYX or TZYX."""
    region = (slice(index, index + 1),) + (slice(None),) * (len(movie.axes) - 1)
    return np.asarray(movie.read(region)[0])
