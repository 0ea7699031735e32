"""What a layout is: a way to store an image, and what every way in must give of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.selection import EVERYTHING, Selection

Y, X = 40, 56
RGB = ("red", "green", "blue")


@dataclass(frozen=True, eq=False)
class Layout:
    """A way to store an image.

    Attributes
    ----------
    write
        Writes it into a folder and returns what is to be read: a file, or an OME-Zarr folder.
    array, axes
        What every way in gives.
    channels
        Names; None for made-up ones.
    pixel_size
        Micrometres by axis; None for unknown.
    warnings
        Codes.
    tolerance
        Largest difference of a value, for lossy codecs.
    other_file
        Another file that the image needs and that a stranger cannot send; empty for none.
    selection
        What of the file the image is.
    apart
        Whether the bytes are read in a process of their own, which takes seconds.
    """

    write: Callable[[Path], Path]
    array: NDArray[Any]
    axes: str
    channels: tuple[str, ...] | None = None
    pixel_size: Mapping[str, float] | None = None
    warnings: frozenset[str] = field(default_factory=frozenset)
    tolerance: float = 0.0
    other_file: str = ""
    selection: Selection = EVERYTHING
    apart: bool = False


def picture(*shape: int, dtype: str = "uint8", seed: int = 0) -> NDArray[Any]:
    """Return smooth blobs with a little noise: values that no rule takes for something else."""
    generator = np.random.default_rng(seed)
    values = generator.random((*shape, Y, X))
    rows, columns = np.mgrid[0:Y, 0:X]
    places = zip(generator.uniform(5, Y - 5, 5), generator.uniform(5, X - 5, 5), strict=True)
    blobs = np.zeros((Y, X))
    for cy, cx in places:
        blobs += np.exp(-((rows - cy) ** 2 + (columns - cx) ** 2) / 30.0)
    values = 0.1 * values + 0.8 * blobs / np.max(blobs)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return np.asarray(values.astype(kind))
    if kind.kind == "b":
        return np.asarray(values > 0.4)
    return np.asarray((values * min(np.iinfo(kind).max, 60_000)).astype(kind))


def of_bytes(suffix: str, data: Callable[[], bytes], expected: NDArray[Any], axes: str, **facts: Any) -> Layout:
    """Return the layout of a file with these bytes; `facts` are other attributes of the layout."""

    def write(folder: Path) -> Path:
        path = folder / f"image{suffix}"
        path.write_bytes(data())
        return path

    return Layout(write, expected, axes, **facts)


GREY = picture()
DEEP = picture(dtype="uint16")
COLOUR = np.stack([picture(seed=seed) for seed in (1, 2, 3)], axis=-1)
CYX = np.moveaxis(COLOUR, -1, 0)
STACK = picture(5, dtype="uint16", seed=4)
MOVIE = picture(6, dtype="uint8", seed=5)
TWO = picture(2, dtype="uint16", seed=6)
HYPER = picture(3, 2, 4, dtype="uint16", seed=7)  # T, C, Z
