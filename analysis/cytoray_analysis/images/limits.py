"""Limits of the image size, checked against the header."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cytoray_analysis.errors import ImageTooLargeError
from cytoray_analysis.images.image import check_pixels

_HINT = "crop it, or store it as OME-Zarr and use cytoray predict, which reads it in blocks"


@dataclass(frozen=True)
class Limits:
    """The largest image to accept, according to its header.

    Parameters
    ----------
    pixels
        Product of the lengths of all axes but ``C``.
    decoded_bytes
        Bytes of all pixels of all channels, decoded; ``None`` for no limit.
    frames
        Planes: product of the lengths of all axes but ``Y``, ``X`` and samples; of a TIFF file also its directories.
    files
        Files in an archive.
    chunk_bytes
        Bytes of one chunk of an OME-Zarr, decoded; ``None``: limited only by the size of its image.
    """

    pixels: int = 2**36
    decoded_bytes: int | None = None
    frames: int = 2**20
    files: int = 2**16
    chunk_bytes: int | None = None


@dataclass(frozen=True)
class Declared:
    """The content of an image header.

    Parameters
    ----------
    axes
        One letter per axis of the stored array, ``S`` for samples.
    shape, dtype
        Of the stored array.
    """

    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def pixels(self) -> int:
        """Product of the lengths of all axes but channels and samples."""
        return math.prod(length for axis, length in zip(self.axes, self.shape, strict=True) if axis not in "CS")

    @property
    def frames(self) -> int:
        """Number of planes."""
        return math.prod(length for axis, length in zip(self.axes, self.shape, strict=True) if axis not in "YXS")

    @property
    def decoded_bytes(self) -> int:
        """Bytes of all pixels, decoded."""
        return math.prod(self.shape) * self.dtype.itemsize


def check_declared(axes: str, shape: Sequence[int], dtype: Any, limits: Limits, label: str) -> Declared:
    """Return the content of a header, if it is an image within the limits.

    Raises
    ------
    ImageError
        It has no pixels, or they are not numeric.
    ImageTooLargeError
        It is larger than the limits allow.
    """
    check_pixels(axes, shape, dtype, label)
    declared = Declared(axes, tuple(int(length) for length in shape), np.dtype(dtype))
    size = " × ".join(str(length) for length in declared.shape)
    for what, has, most in (
        ("pixels", declared.pixels, limits.pixels),
        ("planes", declared.frames, limits.frames),
        ("bytes", declared.decoded_bytes, limits.decoded_bytes),
    ):
        if most is not None and has > most:
            raise ImageTooLargeError(
                f"{label} declares {size} ({axes}): {has} {what}, more than the {most} allowed", hint=_HINT
            )
    return declared
