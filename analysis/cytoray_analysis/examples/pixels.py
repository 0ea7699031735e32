"""Crops of images with a truth per pixel: labels, or another image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cytoray_analysis.augmentation import Augmentation, augment
from cytoray_analysis.bundle import ModelInput
from cytoray_analysis.cells import window_around
from cytoray_analysis.examples.protocol import Example, Places, ScaledPixels, centre_within
from cytoray_analysis.images import Image, IntensityScaling, resample_labels
from cytoray_analysis.images.resample import resample_image_to
from cytoray_analysis.model_input import prepare
from cytoray_analysis.numbering import dense_numbers

OVERHANG = 0.125


class PixelExamples:
    """Caches whole images, and samples crops anywhere in them."""

    leading_axis = "C"
    windowed = False

    def dimensions(self, spatial: int) -> int:
        """Return the number of axes of the image."""
        return spatial

    def inputs(self, model_input: ModelInput) -> int:
        """Count the channels."""
        return model_input.inputs

    def cut(self, image: Image, truth: NDArray[Any], objects: Any, model_input: ModelInput) -> Iterator[Example]:
        """Yield the image as the model input, with labels (spatial…) or target (K, spatial…) in the same pixels.

        An image without a known label teaches nothing, so it is left out.
        """
        if truth.dtype.kind != "f" and not (truth >= 0).any():
            return
        pixels = unscaled(image, model_input)
        shape = pixels.shape[1:]
        if truth.dtype.kind == "f":
            yield Example(pixels, resample_image_to(truth, shape))
        else:
            # However large the numbers in the file are, those here fit into 32 bits.
            yield Example(pixels, resample_labels(dense_numbers(truth)[0], shape).astype(np.int32, copy=False))

    def places(self, truth: NDArray[Any]) -> Places:
        """Offer one place.

        Its weight grows with the square root of the number of objects: neither many small images nor a few large ones
        dominate, and empty images are still sampled.
        """
        objects = 0 if truth.dtype.kind == "f" else len(np.unique(truth[truth > 0]))
        return Places(np.array([np.sqrt(1.0 + objects)]))

    def window(
        self,
        pixels: ScaledPixels,
        truth: NDArray[Any],
        place: int,
        chance: NDArray[np.float64],
        crop: tuple[int, ...],
        augmentation: Augmentation,
    ) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Read the surroundings of a crop; outside the image, pixels are 0 and the truth is unknown (−1 or NaN).

        A crop in which all labels are unknown is moved to a known pixel.
        """
        sides = augmentation.window(crop)
        centre = centre_within(chance.tolist(), pixels.shape, crop, OVERHANG)
        if truth.dtype.kind != "f":
            centre = _near_known(centre, truth, crop, float(chance[0]))
        region = window_around(centre, sides)
        inside = tuple(
            slice(max(part.start, 0), min(part.stop, length)) for part, length in zip(region, pixels.shape, strict=True)
        )
        place_inside = tuple(
            slice(kept.start - part.start, kept.stop - part.start) for kept, part in zip(inside, region, strict=True)
        )
        known = pixels.read(inside)
        images = np.zeros((known.shape[0], *sides), np.float32)
        images[(slice(None), *place_inside)] = known
        places: tuple[Any, ...] = (Ellipsis, *inside)
        leading = truth.shape[: truth.ndim - len(sides)]
        unknown: Any = np.float32(np.nan) if truth.dtype.kind == "f" else np.int64(-1)
        surroundings: NDArray[Any] = np.full((*leading, *sides), unknown)
        targets: tuple[Any, ...] = (Ellipsis, *place_inside)
        surroundings[targets] = truth[places]
        return images, surroundings

    def vary(
        self,
        images: Tensor,
        truth: Tensor,
        crop: tuple[int, ...],
        augmentation: Augmentation,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Warp images and truth together, then change intensities."""
        return augment(images, truth, crop, augmentation, generator)


def _near_known(centre: list[int], truth: NDArray[Any], crop: tuple[int, ...], chance: float) -> list[int]:
    """Return the centre of a crop; a random known pixel, away from the border, where the crop contains none."""
    inside = tuple(
        slice(max(part.start, 0), min(part.stop, length))
        for part, length in zip(window_around(centre, crop), truth.shape, strict=True)
    )
    if (truth[inside] >= 0).any():
        return centre
    known = np.flatnonzero(truth >= 0)
    place = np.unravel_index(known[int(chance * len(known))], truth.shape)
    least = [min(side * (0.5 - OVERHANG), length / 2) for side, length in zip(crop, truth.shape, strict=True)]
    return [
        int(min(max(at, margin), length - margin)) for at, margin, length in zip(place, least, truth.shape, strict=True)
    ]


def unscaled(image: Image, model_input: ModelInput, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
    """Return an image as the model input, (C, spatial…), before its intensities are scaled.

    Scaling follows when the statistics of all training images are known.
    """
    plain = model_input.model_copy(update={"scaling": IntensityScaling(), "statistics": None})
    source = prepare(image, plain, shape=shape)
    pixels: NDArray[Any] = np.repeat(source.image.read(), source.copies, axis=0)
    return pixels
