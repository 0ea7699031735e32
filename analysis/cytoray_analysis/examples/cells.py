"""Windows around cells, each with its truth."""

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
    """Caches whole images with the boxes of their cells, and samples windows around them."""

    leading_axis = "C"
    windowed = True

    def dimensions(self, spatial: int) -> int:
        """Return the number of axes of the image."""
        return spatial

    def inputs(self, model_input: ModelInput) -> int:
        """Count the channels."""
        return model_input.inputs

    def cut(
        self, image: Image, truth: NDArray[Any], objects: Cells | None, model_input: ModelInput
    ) -> Iterator[Example]:
        """Yield the image as the model input, with truth and box of each cell.

        Parameters
        ----------
        truth
            (n,) truth of each cell, such as its class.
        objects
            Its n cells; None for an image of one cell, which is resampled to the window.
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
        """Weight every cell equally; whole numbers are classes."""
        classes = truth[:, 0].astype(np.int64)
        return Places(np.ones(len(truth)), classes if np.array_equal(classes, truth[:, 0]) else None)

    def window(
        self,
        pixels: ScaledPixels,
        truth: NDArray[Any],
        place: int,
        chance: NDArray[np.float64],
        crop: tuple[int, ...],
        augmentation: Augmentation,
    ) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Read the surroundings of a cell, slightly off its centre; outside the image, its border is repeated."""
        box = truth[place, 1:].reshape(2, -1)
        centre = box.mean(axis=0) + (chance - 0.5) * 2 * JITTER * np.array(crop)
        window = read_window(pixels, window_around(centre.tolist(), augmentation.window(crop)))
        return window, np.array(truth[place, 0])

    def vary(
        self,
        images: Tensor,
        truth: Tensor,
        crop: tuple[int, ...],
        augmentation: Augmentation,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Warp the windows and change their intensities; the truth does not change."""
        return augment(images, truth, crop, augmentation, generator)
