"""From an image to the input of a network: axes, channels, pixel size, intensities."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.answer_warnings import AnswerWarning, Warnings
from cytoray_analysis.bundle import ModelInput
from cytoray_analysis.channel_order import in_model_order
from cytoray_analysis.errors import AxesError, ImageError
from cytoray_analysis.images import (
    Image,
    IntensityScaling,
    IntensityStatistics,
    image_from_array,
    intensity_map,
    measure_image,
    scale_intensities,
)
from cytoray_analysis.images.axes import COLOURS, known_pixel_size
from cytoray_analysis.images.choose import how_to_choose
from cytoray_analysis.images.image import require_finite
from cytoray_analysis.images.intensity import range_ratio
from cytoray_analysis.images.resample import resample_image, resample_image_to
from cytoray_analysis.pixel_sizes import Resampling, resampling
from cytoray_analysis.resampled_pixels import ResampledPixels
from cytoray_analysis.selection import AUTO
from cytoray_analysis.tiles import Region

_FAR = 4.0  # factor by which an image's range may differ from the training images without a warning


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
    warnings
        What was assumed about channels, pixel size and intensities.
    """

    image: Image
    copies: int
    offset: NDArray[np.float64]
    scale: NDArray[np.float64]
    original_shape: tuple[int, ...]
    warnings: Warnings = ()

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
        return scale_intensities(pixels, self.offset, self.scale)


@dataclass(frozen=True, eq=False)
class FoldedStack:
    """A z-stack whose planes are channels: a lazily decoded view of (C, Z, Y, X) as (C·Z, Y, X)."""

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
            hint=f"the model was trained on stacks of {planes} planes; use as many, with the same spacing",
        )
    stack = image.select("CZYX")
    names = [f"{channel} z{plane}" for channel in stack.channels for plane in range(planes)]
    flat = known_pixel_size(stack.pixel_size or {}, "YX")
    return replace(stack, data=FoldedStack(stack), axes="CYX", channels=tuple(names), pixel_size=flat)


def match_channels(image: Image, model_input: ModelInput) -> tuple[Image, int, Warnings]:
    """Bring an image to the axes of a model, and its channels to the model's order.

    Returns
    -------
    image, copies, warnings
        The image with the model's axes, how often its one channel is to be repeated, and what was assumed about the
        channels.

    Raises
    ------
    AxesError
        The image has an axis that the model does not take, lacks one, has another number of channels, or names that
        contradict the model's.
    """
    wanted = model_input.inputs
    taken = model_input.axes if model_input.planes is None else model_input.axes.replace("C", "CZ")
    lacks = [axis for axis in model_input.axes if axis not in image.axes and axis != "C"]
    surplus = [axis for axis in image.axes if axis not in taken and axis != "C" and image.size(axis) > 1]
    if lacks or surplus:
        sizes = ", ".join(f"{axis}={length}" for axis, length in zip(image.axes, image.shape, strict=True))
        raise AxesError(
            f"{image.source}: expected an image with axes {taken}, got {image.axes} ({sizes})",
            field="axes",
            hint=_other_axes(lacks, surplus, taken),
        )
    image, warnings = in_model_order(image, model_input.channels)
    if model_input.planes is not None:
        image = _fold_stack(image, model_input.planes)
    chosen = image.select(model_input.axes)
    if chosen.size("C") == wanted:
        return chosen, 1, warnings
    # Grey that was saved as red, green and blue is that again for a colour model.
    saved_as_colour = image.equal_samples and tuple(model_input.channels) == COLOURS
    if chosen.size("C") == 1 and (model_input.grey_as_rgb or saved_as_colour):
        return chosen, wanted, warnings
    expected = f"{wanted} ({', '.join(model_input.channels)})" + (" or 1" if model_input.grey_as_rgb else "")
    raise AxesError(
        f"{image.source}: expected {expected} channels, got {chosen.size('C')} ({', '.join(chosen.channels)})",
        field="channels",
        hint=f"choose the channels that the model was trained on, in their order: {how_to_choose('C')}, "
        f"{'once for each' if wanted > 1 else 'by its name or its number from 0'}",
    )


def _other_axes(lacks: list[str], surplus: list[str], taken: str) -> str:
    """Return the remedy for an image with other axes than the model's."""
    axes = taken.replace("C", "")
    if lacks and surplus:
        return f"if its {'/'.join(surplus)} is {'/'.join(lacks)}, use --input-axes {axes}"
    if lacks:
        return f"the model works on {axes}; use an image with {' and '.join(lacks)}"
    return (
        f"choose one entry of {', '.join(surplus)} ({how_to_choose(''.join(surplus))}), or use a model with this axis"
    )


def resampled(image: Image, model_input: ModelInput) -> Resampling:
    """Return how an image is resampled for a model, according to its header.

    Raises
    ------
    ImageError
        See :func:`cytoray_analysis.pixel_sizes.resampling`.
    """
    return resampling(image, model_input.pixel_size, model_input.spatial_axes, model_input.diameter)


def prepare(
    image: Image, model_input: ModelInput, *, in_memory: bool = True, shape: tuple[int, ...] | None = None
) -> NetworkImage:
    """Bring an image into the form that a model takes.

    Parameters
    ----------
    in_memory
        Decode the image once now; else it is read, and resampled, region by region.
    shape
        Spatial shape to resample to, whatever the pixel size.

    Raises
    ------
    AxesError, ImageError
        See :func:`match_channels`, :func:`resampled` and :meth:`NetworkImage.read`.
    """
    if image.diameter == AUTO:
        raise ImageError(
            f"{image.source}: the width of its objects cannot be measured: this needs a model that outlines objects, "
            "and an image that fits into memory",
            field="diameter",
            hint="state it in pixels, such as --diameter 40",
        )
    chosen, copies, warnings = match_channels(image, model_input)
    original = chosen.spatial_shape
    size = resampled(chosen, model_input) if shape is None else Resampling(None, shape)
    before = chosen
    if not in_memory and size.zoom is not None:
        chosen = replace(chosen, data=ResampledPixels(chosen, size.shape), pixel_size=None)
    elif in_memory:
        pixels = chosen.read()
        before = replace(chosen, data=pixels)
        if size.zoom is not None or (shape is not None and shape != original):
            require_finite(pixels, image.source)
            pixels = (
                resample_image(pixels, size.zoom) if size.zoom is not None else resample_image_to(pixels, size.shape)
            )
        chosen = replace(chosen, data=pixels, pixel_size=None)
    offset, scale, about = _map_of(chosen, before, copies, model_input)
    return NetworkImage(chosen, copies, offset, scale, original, warnings + size.warnings + about)


def _map_of(
    image: Image, before: Image, copies: int, model_input: ModelInput
) -> tuple[NDArray[np.float64], NDArray[np.float64], Warnings]:
    """Return offset and scale per channel of a resampled image, and warnings about them."""
    scaling, statistics = model_input.scaling, model_input.statistics
    channels = image.size("C") * copies
    if scaling.scope == "dataset" and statistics is not None and statistics.is_identity:
        return np.zeros(channels), np.ones(channels), ()
    begin, spread = measure_image(image, scaling)
    if any(now > was for now, was in zip(image.spatial_shape, before.spatial_shape, strict=True)):
        # Enlarged noise looks like a picture, so it is looked for before.
        spread[measure_image(before, scaling)[1] == 0] = 0.0
    about = _about_range(image, spread, scaling, statistics)
    measured = np.repeat(begin, copies), np.repeat(spread, copies)
    offset, scale = intensity_map(np.empty((channels, 0)), scaling, statistics, measured=measured)
    return offset, scale, about


def _about_range(
    image: Image, spread: NDArray[np.float64], scaling: IntensityScaling, statistics: IntensityStatistics | None
) -> Warnings:
    """Return a warning where an image shows nothing, or its range is far from that of the data that set the scale."""
    if scaling.scope == "image" or statistics is None:
        empty = [name for name, width in zip(image.channels, spread, strict=True) if width == 0]
        if not empty:
            return ()
        what = "it" if len(image.channels) == 1 else f"channel {', '.join(empty)}"
        sentence = f"{image.source}: {what} is constant or pure camera noise, and was treated as empty"
        return (AnswerWarning("no-contrast", sentence),)
    ratio = range_ratio(spread, scaling, statistics)
    if ratio > 0 and not _is_near(ratio) and scaling.method == "zscore":
        # The training's deviation is that of all pixels together: images of unlike brightness make it larger than that
        # of any image. Percentiles were measured image by image.
        by_image = scaling.model_copy(update={"method": "percentile"})
        ratio = range_ratio(measure_image(image, by_image)[1], by_image, statistics)
    if _is_near(ratio):
        return ()
    if ratio == 0:
        what = "is constant or pure camera noise"
    elif ratio > 1:
        what = f"has a range of intensities {ratio:.3g} times as wide as the training images"
    else:
        what = f"has a range of intensities {1 / ratio:.3g} times narrower than the training images"
    sentence = f"{image.source} {what}, which set the scale: check its unit and bit depth"
    return (AnswerWarning("intensity-range", sentence),)


def _is_near(ratio: float) -> bool:
    return 1 / _FAR <= ratio <= _FAR
