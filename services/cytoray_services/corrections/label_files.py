"""The files of an item: its image, given labels, and the labels and known pixels that training reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import AxesError, ImageError, ImageTooLargeError
from cytoray_analysis.files import whole_path
from cytoray_analysis.images import Image, Limits, read_image
from cytoray_analysis.images.label_values import as_labels
from cytoray_services.corrections.edits import LARGEST_LABEL
from cytoray_services.records import reading

STACK = "TZYX"
MOST_PIXELS = 2**26
"""Labels of an item: each request with edits reads and writes all of them."""
_LIMITS = Limits(pixels=MOST_PIXELS, decoded_bytes=2**31, frames=4096)


@dataclass(frozen=True)
class Form:
    """The size of the labels of an item.

    Attributes
    ----------
    axes
        Those of the image without channels, such as ``ZYX``.
    shape
        Length of each.
    """

    axes: str
    shape: tuple[int, ...]

    @property
    def stack(self) -> tuple[int, ...]:
        """Lengths along T, Z, Y and X."""
        lengths: Mapping[str, int] = dict(zip(self.axes, self.shape, strict=True))
        return tuple(lengths.get(axis, 1) for axis in STACK)


def open_given(path: Path, name: str) -> tuple[Image, Form]:
    """Open an image that a caller sent.

    Raises
    ------
    ImageError
        It cannot be read, or is too large to be corrected; see :func:`cytoray_analysis.images.read_image`.
    """
    image = read_image(path, limits=_LIMITS, name=name, alone=True)
    return image, _form(image, name)


def _form(image: Image, name: str) -> Form:
    axes = image.axes.replace("C", "")
    form = Form(axes, tuple(image.size(axis) for axis in axes))
    if not set(axes) <= set(STACK) or not axes.endswith("YX"):
        raise AxesError(f"{name}: expected axes of TCZYX, got {image.axes}", field="image")
    if math.prod(form.shape) > MOST_PIXELS:
        raise ImageTooLargeError(
            f"{name}: expected at most {MOST_PIXELS} pixels in all planes and frames, got {math.prod(form.shape)}",
            field="image",
            hint="add a crop of it: its labels are written after each edit",
        )
    return form


def read_given_labels(path: Path, name: str, form: Form) -> NDArray[np.uint32]:
    """Read labels that a caller sent, as (T, Z, Y, X) uint32.

    Raises
    ------
    ImageError
        They cannot be read, or have another size than their image.
    """
    image = read_image(path, limits=_LIMITS, name=name, alone=True, labels=True)
    if "C" in image.axes or (image.axes, image.shape) != (form.axes, form.shape):
        raise ImageError(
            f"{name}: expected labels with the axes {form.axes} of the image and its shape {form.shape}, got "
            f"{image.axes} of shape {image.shape}",
            field="masks",
            hint="store one integer per pixel: the number of the object, 0 for background",
        )
    labels = as_labels(image.read(), name)
    highest = int(labels.max(initial=0))
    if highest > LARGEST_LABEL:
        raise ImageError(
            f"{name}: expected labels of at most {LARGEST_LABEL}, got {highest}",
            field="masks",
            hint="renumber the objects from 1",
        )
    return np.ascontiguousarray(labels.reshape(form.stack), np.uint32)


def write_labels(path: Path, labels: NDArray[np.uint32], form: Form) -> None:
    """Write labels so that they can be read in parts, in place of those before."""
    _write(path, labels, form, {})


def write_known(path: Path, known: NDArray[np.bool_], form: Form) -> None:
    """Write the mask of known pixels: 1 for known, 0 for unknown."""
    _write(path, known.astype(np.uint8), form, {"compression": "zlib"})


def _write(path: Path, stack: NDArray[Any], form: Form, options: Mapping[str, Any]) -> None:
    import tifffile

    with whole_path(path) as draft:
        tifffile.imwrite(
            draft, stack.reshape(form.shape), photometric="minisblack", metadata={"axes": form.axes}, **options
        )


def map_labels(path: Path, form: Form) -> NDArray[np.uint32]:
    """Return the labels that :func:`write_labels` wrote, (T, Z, Y, X), read from the file where they are used.

    Raises
    ------
    PlatformError
        The file is missing or damaged.
    """
    import tifffile

    with reading(path, "the labels of an item"):
        try:
            mapped: NDArray[np.uint32] = tifffile.memmap(path, mode="r")
        except tifffile.TiffFileError as error:
            raise ValueError(str(error)) from error
        return mapped.reshape(form.stack)
