"""An image: pixels that are decoded on access, and the meaning of their axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from cytoray_analysis.answer_warnings import AnswerWarning, Warnings, join_warnings
from cytoray_analysis.errors import AxesError, ImageError
from cytoray_analysis.images.axes import SPATIAL_AXES, channel_names, check_axes, how_to_choose, known_pixel_size
from cytoray_analysis.images.damage import reading
from cytoray_analysis.images.memory import require_memory


@dataclass(frozen=True, eq=False)
class AxisView:
    """Another arrangement of the axes of a lazily read array; no pixel is read until it is sliced.

    Parameters
    ----------
    source
        Anything with ``shape``, ``dtype`` and numpy-style slicing: a numpy, dask or zarr array, or a view.
    keep
        One entry per axis of `source`: an index if the axis is dropped, else the number of entries to keep.
    order
        One entry per axis of the view: the source axis, or ``None`` for a new axis of length one.
    """

    source: Any
    keep: tuple[int | slice, ...]
    order: tuple[int | None, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis of the view."""
        return tuple(1 if axis is None else self._length(axis) for axis in self.order)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        dtype: np.dtype[Any] = np.dtype(self.source.dtype)
        return dtype

    def __getitem__(self, region: tuple[slice, ...]) -> np.ndarray:
        """Decode a region, one slice per axis."""
        native = [slice(entry, entry + 1) if isinstance(entry, int) else entry for entry in self.keep]
        for axis, part in zip(self.order, region, strict=True):
            if axis is not None:
                native[axis] = slice(*part.indices(self._length(axis)))
        pixels = decode_region(self.source, tuple(native))
        pixels = pixels[tuple(0 if isinstance(entry, int) else slice(None) for entry in self.keep)]
        kept = [axis for axis, entry in enumerate(self.keep) if isinstance(entry, slice)]
        pixels = pixels.transpose([kept.index(axis) for axis in self.order if axis is not None])
        new = tuple(place for place, axis in enumerate(self.order) if axis is None)
        return np.expand_dims(pixels, new) if new else pixels

    def _length(self, axis: int) -> int:
        entry = self.keep[axis]
        if not isinstance(entry, slice):
            raise AxesError(f"axis {axis} was dropped from this view")
        return len(range(*entry.indices(int(self.source.shape[axis]))))


def decode_region(data: Any, region: tuple[slice, ...]) -> np.ndarray:
    """Decode a region of a numpy, dask or zarr array or of a view, one slice per axis."""
    part = data[region]
    compute = getattr(part, "compute", None)  # dask; one thread, because callers bring their own parallelism
    return np.asarray(part if compute is None else compute(scheduler="synchronous"))


@dataclass(frozen=True, eq=False)
class Image:
    """Pixels with named axes, decoded lazily.

    Parameters
    ----------
    data
        A numpy array, or anything with ``shape``, ``dtype`` and numpy-style slicing.
    axes
        Letters of ``TCZYX`` in that order, one per axis of `data`.
    channels
        One name per entry of ``C``; one name when there is no ``C``.
    pixel_size
        Micrometres per pixel along each spatial axis, such as ``{"Y": 0.65, "X": 0.65}``; ``None`` when unknown.
    source
        Source of the pixels, for messages.
    warnings
        What was assumed or omitted when it was read; part of every answer about the image.
    guessed_axes
        Whether the file only states that it has planes, whose meaning was guessed.
    equal_samples
        Whether its single channel was stored as equal red, green and blue; a colour model accepts it.
    numbers
        Numbers of the selected channels in the file, from 0; empty without a selection.
    diameter
        Usual width of an object in pixels, if it was given; ``"auto"`` if it is to be measured.
    """

    data: Any
    axes: str
    channels: tuple[str, ...]
    pixel_size: Mapping[str, float] | None = None
    source: str = "array"
    warnings: Warnings = ()
    guessed_axes: bool = False
    equal_samples: bool = False
    numbers: tuple[int, ...] = ()
    diameter: float | Literal["auto"] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return tuple(int(length) for length in self.data.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels, in the byte order of this machine."""
        dtype: np.dtype[Any] = np.dtype(self.data.dtype)
        return dtype.newbyteorder("=")

    def size(self, axis: str) -> int:
        """Length of one axis; 1 when the image does not have it."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Lengths of the spatial axes, ``(Y, X)`` or ``(Z, Y, X)``."""
        return tuple(self.size(axis) for axis in SPATIAL_AXES if axis in self.axes)

    def select(self, axes: str) -> Image:
        """Return the same image with exactly these axes.

        Absent axes of length one are dropped and missing ones are added; nothing is decoded.

        Parameters
        ----------
        axes
            The wanted axes, such as ``"CYX"``.

        Raises
        ------
        AxesError
            When an axis longer than one would be lost.
        """
        check_axes(axes)
        if axes == self.axes:
            return self
        lost = [axis for axis in self.axes if axis not in axes and self.size(axis) > 1]
        if lost:
            sizes = ", ".join(f"{axis}={self.size(axis)}" for axis in lost)
            raise AxesError(
                f"{self.source}: expected an image with axes {axes}, got {self.axes} with {sizes}",
                field="axes",
                hint=f"choose with {how_to_choose(''.join(lost))}, or use a model for these axes",
            )
        keep = tuple(slice(None) if axis in axes else 0 for axis in self.axes)
        order = tuple(self.axes.index(axis) if axis in self.axes else None for axis in axes)
        view: Any = AxisView(self.data, keep, order)
        if isinstance(self.data, np.ndarray):
            view = view[(slice(None),) * len(axes)]  # a numpy view, no copy
        return replace(self, data=view, axes=axes, pixel_size=known_pixel_size(self.pixel_size or {}, axes))

    def warn(self, *warnings: AnswerWarning) -> Image:
        """Return the same image with further warnings."""
        return replace(self, warnings=join_warnings(self.warnings, warnings))

    def read(self, region: tuple[slice, ...] | None = None) -> np.ndarray:
        """Decode pixels.

        Parameters
        ----------
        region
            One slice per axis of :attr:`axes`; the whole image when left out. Only the chunks that the region
            touches are decoded.

        Returns
        -------
        numpy.ndarray
            The pixels with the axes of the image, in the byte order of this machine.

        Raises
        ------
        AxesError
            When `region` does not have one slice per axis.
        UnreadableImageError
            When the file turns out to be damaged.
        ImageTooLargeError
            When the pixels do not fit into the memory that is free.
        """
        wanted = (slice(None),) * len(self.axes) if region is None else tuple(region)
        if len(wanted) != len(self.axes):
            raise AxesError(
                f"expected one slice per axis of {self.axes} for a region of {self.source}, got {len(wanted)}"
            )
        if isinstance(self.data, np.ndarray):
            pixels = self.data[wanted]
        else:
            lengths = (len(range(*part.indices(size))) for part, size in zip(wanted, self.shape, strict=True))
            require_memory(math.prod(lengths) * self.dtype.itemsize, self.source)
            with reading(self.source):
                pixels = decode_region(self.data, wanted)
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def image_from_array(
    array: Any,
    axes: str,
    *,
    channels: Sequence[str] | None = None,
    pixel_size: Mapping[str, float] | None = None,
    source: str = "array",
    warnings: Iterable[AnswerWarning] = (),
    guessed_axes: bool = False,
) -> Image:
    """Wrap an array as an :class:`Image`, after validation.

    Parameters
    ----------
    array
        Pixels: boolean, integer or real, with one axis per letter of `axes`, none of them empty. Anything with
        ``shape``, ``dtype`` and numpy-style slicing is accepted.
    axes
        Letters of ``TCZYX`` in that order.
    channels
        One name per entry of ``C`` (one name without ``C``); default names are used if omitted.
    pixel_size
        Micrometres per pixel along the spatial axes, when known.
    source
        A name for messages.
    warnings
        What a user should know about the image before using an answer about it.
    guessed_axes
        Whether the meaning of the axes other than ``Y`` and ``X`` is a guess.

    Raises
    ------
    AxesError
        When axes and array, or channels and array, do not fit each other.
    ImageError
        When the array is empty or not numeric.
    """
    check_axes(axes)
    shape = tuple(int(length) for length in array.shape)
    if len(shape) != len(axes):
        raise AxesError(
            f"{source}: expected {len(axes)} axes ({axes}), got {len(shape)} of shape {shape}", field="axes"
        )
    check_pixels(axes, shape, array.dtype, source)
    count = shape[axes.index("C")] if "C" in axes else 1
    if channels is not None and len(channels) != count:
        raise AxesError(f"{source}: expected {count} channel names, got {len(channels)}", field="channels")
    return Image(
        data=array,
        axes=axes,
        channels=channel_names(channels, count),
        pixel_size=known_pixel_size(pixel_size or {}, axes),
        source=source,
        warnings=join_warnings(warnings),
        guessed_axes=guessed_axes,
    )


def check_pixels(axes: str, shape: Sequence[int], dtype: Any, source: str) -> None:
    """Raise :class:`ImageError` unless an array of this shape and type can be an image."""
    if 0 in shape:
        raise ImageError(
            f"{source}: expected at least one pixel along every axis, got {axes} = {tuple(shape)}",
            hint="the image is empty; check how it was exported or cropped",
        )
    if np.dtype(dtype).kind not in "buif":
        raise ImageError(
            f"{source}: expected boolean, integer or real pixels, got {dtype}",
            hint="convert the image, for example to uint16 or float32",
        )


def require_finite(array: np.ndarray, source: str) -> None:
    """Raise :class:`ImageError` when pixels hold NaN or infinity.

    Parameters
    ----------
    array
        Pixels of any type; integers pass without a check.
    source
        The image's name, for the message.
    """
    if array.dtype.kind != "f" or array.size == 0:
        return
    # The sum is finite for almost every good image and costs one pass without a temporary array.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(array.sum(dtype=np.float64)):
            return
    bad = int(array.size - np.count_nonzero(np.isfinite(array)))
    if bad:
        raise ImageError(
            f"{source}: expected finite pixels, got {bad} that are NaN or infinite",
            hint="replace them, for example by the image's median, or correct the program that wrote them",
        )
