"""The pixel size of an image and of a model: resampling of the image, and warnings about unknown sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cytoray_analysis.answer_warnings import AnswerWarning, Warnings
from cytoray_analysis.errors import ImageError, ImageTooLargeError
from cytoray_analysis.images.image import Image

MOST = 8.0  # times that an image may grow or shrink along an axis
LARGEST = 2**28  # pixels, channels counted, of an image that resampling makes larger
_NEARLY = 0.05  # within five percent the resampling would cost more accuracy than it gives


@dataclass(frozen=True)
class Resampling:
    """How an image comes to a model's pixel size.

    Attributes
    ----------
    zoom
        Factor along each spatial axis; None without resampling.
    shape
        Spatial shape afterwards.
    warnings
        Which sizes are unknown.
    """

    zoom: tuple[float, ...] | None
    shape: tuple[int, ...]
    warnings: Warnings = ()


def resampling(
    image: Image, wanted: Mapping[str, float] | None, axes: str, diameter: float | None = None
) -> Resampling:
    """Say how an image is to be resampled; nothing is decoded.

    Parameters
    ----------
    image
        Its header is looked at.
    wanted
        The model's micrometres per pixel along each spatial axis; None takes images as they are.
    axes
        The model's spatial axes. An axis that the image lacks has one pixel.
    diameter
        Usual width of an object in pixels of the model, for images whose :attr:`~Image.diameter` is given.

    Raises
    ------
    ImageError
        The image would change more than 8-fold along an axis, or the width of its objects is given for a model that
        states none.
    ImageTooLargeError
        It would have more than 2²⁸ pixels.
    """
    shape = tuple(image.size(axis) for axis in axes)
    if isinstance(image.diameter, float):
        return _to_diameter(image, shape, diameter)
    if not wanted:
        return Resampling(None, shape)
    sizes = image.pixel_size or {}
    if "Y" not in sizes or "X" not in sizes:
        sentence = f"{image.source} does not state its pixel size; the model's was assumed, {say_size(wanted, axes)}"
        return Resampling(None, shape, (AnswerWarning("pixel-size-unknown", sentence),))
    warnings: Warnings = ()
    if "Z" in axes and "Z" in wanted and "Z" not in sizes:
        sentence = (
            f"{image.source} does not state the distance of its planes; that of the model was assumed, "
            f"{wanted['Z']:g} µm"
        )
        warnings = (AnswerWarning("pixel-size-unknown", sentence),)
    zoom = tuple(sizes[axis] / wanted[axis] if axis in sizes and axis in wanted else 1.0 for axis in axes)
    for axis, factor in zip(axes, zoom, strict=True):
        if not 1 / MOST <= factor <= MOST:
            raise ImageError(
                f"{image.source}: its pixel size is {say_size(sizes, axes)}, the model's {say_size(wanted, axes)}: "
                f"resampling would change the image {max(factor, 1 / factor):.3g}-fold along {axis}, "
                f"the limit is {MOST:g}-fold",
                field="pixel_size",
                hint="if the file is wrong, set the true size in µm, such as --pixel-size 0.5; "
                "--pixel-size none uses the image without resampling",
            )
    if all(abs(factor - 1) < _NEARLY for factor in zoom):
        return Resampling(None, shape, warnings)
    after = _shape_after(shape, zoom)
    if _is_too_large(image, shape, after):
        raise ImageTooLargeError(
            f"{image.source}: at the model's pixel size of {say_size(wanted, axes)} it would have "
            f"{' × '.join(map(str, after))} pixels, more than the limit of {LARGEST}; its own is "
            f"{say_size(sizes, axes)}",
            field="pixel_size",
            hint="divide the image into parts; if the file is wrong about its size, set the true one in µm with "
            "--pixel-size",
        )
    return Resampling(zoom, after, warnings)


def _to_diameter(image: Image, shape: tuple[int, ...], wanted: float | None) -> Resampling:
    """Return how objects of the image get the width that the model was trained on; the pixel size does not matter."""
    assert isinstance(image.diameter, float)  # noqa: S101 - the caller has checked it
    if wanted is None:
        raise ImageError(
            f"{image.source}: a diameter of objects is given, but the model does not state that of its objects",
            field="diameter",
            hint="omit the diameter; for a model with a pixel size, set that of the image",
        )
    factor = wanted / image.diameter
    if not 1 / MOST <= factor <= MOST:
        raise ImageError(
            f"{image.source}: objects {image.diameter:g} pixels wide would be resampled "
            f"{max(factor, 1 / factor):.3g}-fold to the {wanted:g} pixels of the model, the limit is {MOST:g}-fold",
            field="diameter",
            hint=f"this model finds objects from {wanted / MOST:.3g} to {wanted * MOST:.3g} pixels wide",
        )
    if abs(factor - 1) < _NEARLY:
        return Resampling(None, shape)
    zoom = (factor,) * len(shape)
    after = _shape_after(shape, zoom)
    if _is_too_large(image, shape, after):
        raise ImageTooLargeError(
            f"{image.source}: for objects {image.diameter:g} pixels wide it would have {' × '.join(map(str, after))} "
            f"pixels, more than the limit of {LARGEST}",
            field="diameter",
            hint="divide the image into parts",
        )
    return Resampling(zoom, after)


def _shape_after(shape: tuple[int, ...], zoom: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(max(1, round(length * factor)) for length, factor in zip(shape, zoom, strict=True))


def _is_too_large(image: Image, shape: tuple[int, ...], after: tuple[int, ...]) -> bool:
    channels = image.size("C")
    return channels * math.prod(after) > max(LARGEST, channels * math.prod(shape))


def say_size(sizes: Mapping[str, float], axes: str) -> str:
    """Return a pixel size in words, such as ``0.5 x 0.5 µm (Y x X)``."""
    known = [axis for axis in axes if axis in sizes]
    return f"{' x '.join(f'{sizes[axis]:g}' for axis in known)} µm ({' x '.join(known)})"
