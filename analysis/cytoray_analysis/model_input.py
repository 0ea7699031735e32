"""From an image to what a network takes: axes, channels, pixel size, intensities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.bundle import ModelInput
from cytoray_analysis.errors import AxesError, ImageError
from cytoray_analysis.images import Image, image_from_array, intensity_map, sample_for_statistics
from cytoray_analysis.images.image import require_finite
from cytoray_analysis.images.resample import resample_image, resample_image_to
from cytoray_analysis.tiles import Region


@dataclass(frozen=True, eq=False)
class NetworkImage:
    """An image in the axes of a model, with the map that scales its intensities.

    Attributes
    ----------
    image
        The image with the axes of the model, its own or one channel; read region by region.
    copies
        How often its one channel is repeated.
    offset, scale
        Per channel: scaled = (pixel − offset) · scale.
    original_shape
        Spatial shape before resampling to the model's pixel size; answers are brought back to it.
    """

    image: Image
    copies: int
    offset: NDArray[np.float32]
    scale: NDArray[np.float32]
    original_shape: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape."""
        return self.image.spatial_shape

    def read(self, region: Region) -> NDArray[np.float32]:
        """Return scaled intensities of a spatial region, (C, spatial…) float32.

        Raises
        ------
        ImageError
            A pixel is NaN or infinite, or the file is damaged.
        """
        pixels = self.image.read((slice(None), *region))
        require_finite(pixels, self.image.source)
        column = (-1,) + (1,) * len(region)
        scaled: NDArray[np.float32] = pixels.astype(np.float32) - self.offset.reshape(column)
        scaled *= self.scale.reshape(column)
        return scaled


@dataclass(frozen=True, eq=False)
class FoldedStack:
    """A z-stack whose planes are channels: (C, Z, Y, X) seen as (C·Z, Y, X), decoded lazily."""

    stack: Image

    @property
    def shape(self) -> tuple[int, ...]:
        """(C·Z, Y, X)."""
        channels, planes, *plane = self.stack.shape
        return (channels * planes, *plane)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        return self.stack.dtype

    def __getitem__(self, region: tuple[slice, ...]) -> NDArray[Any]:
        """Decode a region, one slice per axis."""
        channels, *plane = region
        pixels = self.stack.read((slice(None), slice(None), *plane))
        folded: NDArray[Any] = pixels.reshape(-1, *pixels.shape[2:])[channels]
        return folded


def blank_image(model_input: ModelInput, shape: tuple[int, ...]) -> Image:
    """Return a black image of a spatial shape as the model takes it."""
    planes = () if model_input.planes is None else (model_input.planes,)
    axes = model_input.axes if model_input.planes is None else model_input.axes.replace("C", "CZ")
    pixels = np.zeros((len(model_input.channels), *planes, *shape), np.uint8)
    return image_from_array(pixels, axes, channels=model_input.channels, source="a blank image")


def _fold_stack(image: Image, planes: int) -> Image:
    if image.size("Z") != planes:
        raise AxesError(
            f"{image.source}: expected a stack of {planes} planes, got {image.size('Z')}",
            field="axes",
            hint=f"the model was trained on stacks of {planes} planes; choose as many, at the same spacing",
        )
    stack = image.select("CZYX")
    names = [f"{channel} z{plane}" for channel in stack.channels for plane in range(planes)]
    return image_from_array(FoldedStack(stack), "CYX", channels=names, pixel_size=image.pixel_size, source=image.source)


def match_channels(image: Image, model_input: ModelInput) -> tuple[Image, int]:
    """Bring an image to the axes of a model.

    Returns
    -------
    image, copies
        The image with the model's axes, and how often its one channel is to be repeated.

    Raises
    ------
    AxesError
        The image has an axis that the model does not take, lacks one, or has another number of channels.
    """
    wanted = model_input.inputs
    if model_input.planes is not None:
        image = _fold_stack(image, model_input.planes)
    for axis in model_input.axes:
        if axis not in image.axes and axis != "C":
            raise AxesError(
                f"{image.source}: expected an image with axes {model_input.axes}, got {image.axes}",
                field="axes",
                hint=f"the model works on {model_input.axes}; give an image that has {axis}",
            )
    chosen = image.select(model_input.axes)
    if chosen.size("C") == wanted:
        return chosen, 1
    if chosen.size("C") == 1 and model_input.grey_as_rgb:
        return chosen, wanted
    expected = f"{wanted} ({', '.join(model_input.channels)})" + (" or 1" if model_input.grey_as_rgb else "")
    raise AxesError(
        f"{image.source}: expected {expected} channels, got {chosen.size('C')} ({', '.join(chosen.channels)})",
        field="channels",
        hint="select the channels that the model was trained on",
    )


def prepare(
    image: Image, model_input: ModelInput, *, in_memory: bool = True, shape: tuple[int, ...] | None = None
) -> NetworkImage:
    """Bring an image into the form that a model takes.

    Parameters
    ----------
    in_memory
        Decode the image once now; else it is read region by region, and must have the model's pixel size
        already.
    shape
        Spatial shape to resample to, whatever the pixel size.

    Raises
    ------
    AxesError, ImageError
        See :func:`match_channels` and :meth:`NetworkImage.read`.
    """
    chosen, copies = match_channels(image, model_input)
    original = chosen.spatial_shape
    zoom = _zoom(chosen, model_input) if shape is None else None
    if in_memory or zoom is not None:
        if not in_memory:
            raise ImageError(
                f"{image.source}: its pixel size {dict(chosen.pixel_size or {})} differs from the model's "
                f"{model_input.pixel_size}, and it is too large to be resampled in memory",
                hint="store it at the model's pixel size first",
            )
        pixels = chosen.read()
        if zoom is not None:
            require_finite(pixels, image.source)
            pixels = resample_image(pixels.astype(np.float32), zoom)
        elif shape is not None and shape != original:
            require_finite(pixels, image.source)
            pixels = resample_image_to(pixels, shape)
        chosen = image_from_array(pixels, chosen.axes, channels=chosen.channels, source=image.source)
    sample = sample_for_statistics(chosen)
    if copies > 1:
        sample = np.broadcast_to(sample, (copies, *sample.shape[1:]))
    offset, scale = intensity_map(sample, model_input.scaling, model_input.statistics)
    return NetworkImage(chosen, copies, offset, scale, original)


def _zoom(image: Image, model_input: ModelInput) -> tuple[float, ...] | None:
    """Return the factor per spatial axis that brings an image to the model's pixel size; None where there is none."""
    if not model_input.pixel_size or not image.pixel_size:
        return None
    axes = model_input.spatial_axes
    if not all(axis in image.pixel_size and axis in model_input.pixel_size for axis in axes):
        return None
    zoom = tuple(image.pixel_size[axis] / model_input.pixel_size[axis] for axis in axes)
    # Within five percent the resampling would cost more accuracy than it gives.
    return None if all(abs(factor - 1) < 0.05 for factor in zoom) else zoom
