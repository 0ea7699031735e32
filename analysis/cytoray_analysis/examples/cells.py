"""Windows around cells, each with a class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cytoray_analysis.augmentation import Augmentation, augment
from cytoray_analysis.bundle import ModelInput
from cytoray_analysis.cells import Cells, read_window, whole_image, window_around
from cytoray_analysis.examples.pixels import unscaled
from cytoray_analysis.examples.protocol import Example, Places, ScaledPixels
from cytoray_analysis.images import Image

JITTER = 0.06


class CellExamples:
    """Whole images are kept with the boxes of their cells; windows are drawn around those."""

    leading_axis = "C"
    windowed = True

    def dimensions(self, spatial: int) -> int:
        """Say that a crop has the axes of the image."""
        return spatial

    def inputs(self, model_input: ModelInput) -> int:
        """Count the channels."""
        return model_input.inputs

    def cut(
        self, image: Image, truth: NDArray[np.int64], objects: Cells | None, model_input: ModelInput
    ) -> Iterator[Example]:
        """Yield the image as the model sees it, with class and box of each cell.

        Parameters
        ----------
        truth
            (n,) class of each cell.
        objects
            Its n cells; None for an image that shows one, which is resampled to the window.
        """
        if objects is None:
            pixels = unscaled(image, model_input, shape=model_input.window)
            cells = whole_image(pixels.shape[1:])
        else:
            pixels = unscaled(image, model_input)
            cells = objects.scaled([now / was for now, was in zip(pixels.shape[1:], image.spatial_shape, strict=True)])
        boxes = cells.boxes.reshape(len(cells), -1)
        yield Example(pixels, np.column_stack((truth, boxes)).astype(np.float32))

    def places(self, truth: NDArray[Any]) -> Places:
        """Offer every cell alike."""
        return Places(np.ones(len(truth)), truth[:, 0].astype(np.int64))

    def window(
        self,
        pixels: ScaledPixels,
        truth: NDArray[Any],
        place: int,
        chance: NDArray[np.float64],
        crop: tuple[int, ...],
        augmentation: Augmentation,
    ) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Read the surroundings of a cell, a little off its centre; beyond the image its border goes on."""
        box = truth[place, 1:].reshape(2, -1)
        centre = box.mean(axis=0) + (chance - 0.5) * 2 * JITTER * np.array(crop)
        window = read_window(pixels, window_around(centre.tolist(), augmentation.window(crop)))
        return window, np.array(truth[place, 0], np.int64)

    def vary(
        self,
        images: Tensor,
        truth: Tensor,
        crop: tuple[int, ...],
        augmentation: Augmentation,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Warp the windows and vary their intensities; the class stays."""
        return augment(images, truth, crop, augmentation, generator)
