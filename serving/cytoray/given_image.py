"""An image from a script: a file, an array, or an image that was read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cytoray_analysis.errors import AxesError, RequestError

if TYPE_CHECKING:
    from cytoray_analysis.images import Image

Source = Any
"""A path, an array with its axes, or an :class:`~cytoray_analysis.images.Image`."""


def is_file(source: Source) -> bool:
    """Whether a source is the path or the URI of a file."""
    return isinstance(source, str | Path)


def image_of(source: Source, axes: str | None) -> Image:
    """Return an array as an image; return an image unchanged.

    Parameters
    ----------
    axes
        Axes of an array: letters of ``TCZYX`` in its order. By default ``YX`` for two axes, and ``YXC`` for three
        axes if the last one has 3 or 4 entries, as in a colour picture.

    Raises
    ------
    AxesError
        The axes of an array are unknown or do not match its shape.
    RequestError
        It is neither a path, an array nor an image.
    """
    from cytoray_analysis.images import AXES, Image, image_from_array

    if isinstance(source, Image):
        return source
    if not hasattr(source, "shape") or not hasattr(source, "dtype"):
        raise RequestError(
            f"expected a path, an array or an image, got {source!r:.80} ({type(source).__name__})", field="image"
        )
    array = np.asarray(source)
    named = axes or {2: "YX", 3: "YXC" if array.shape[-1] in (3, 4) else ""}.get(array.ndim, "")
    if not named:
        raise AxesError(
            f"expected the axes of an array of shape {array.shape}, got none",
            field="axes",
            hint="give for example axes='ZYX' for a volume, 'CYX' for channels, 'TYX' for a movie",
        )
    if len(named) != array.ndim or len(set(named)) != len(named) or not set(named) <= set(AXES):
        raise AxesError(
            f"expected {array.ndim} different letters of {AXES} for an array of shape {array.shape}, got {named!r}",
            field="axes",
        )
    order = sorted(named, key=AXES.index)
    return image_from_array(array.transpose([named.index(axis) for axis in order]), "".join(order))
