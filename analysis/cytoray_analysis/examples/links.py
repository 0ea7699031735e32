"""Tables of candidate links between the frames of a movie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cytoray_analysis.augmentation import Augmentation
from cytoray_analysis.bundle import ModelInput
from cytoray_analysis.examples.protocol import Example, Places, ScaledPixels
from cytoray_analysis.images import Image, image_from_array
from cytoray_analysis.tracking.candidates import FEATURES
from cytoray_analysis.tracking.examples import training_examples
from cytoray_analysis.tracking.frames import FrameStack
from cytoray_analysis.tracking.lineage import Lineage

LOST = 0.02  # share of objects


class LinkExamples:
    """One table per pair of frames; stretches of candidates are drawn from it."""

    leading_axis = "T"
    windowed = False

    def dimensions(self, spatial: int) -> int:
        """Say that a stretch of candidates has one axis."""
        return 1

    def inputs(self, model_input: ModelInput) -> int:
        """Count the features."""
        return FEATURES

    def cut(self, image: Image, truth: Lineage, objects: Any, model_input: ModelInput) -> Iterator[Example]:
        """Yield the features of the candidate links of each pair of frames (F, N), and what is true of them (M, N).

        Where outlines of every frame are known beside the given masks, their candidates are yielded, too, some objects
        left out by chance: so that a linker learns from small markers and whole cells, and what a lost object is.
        """
        given = [(objects, 0.0)]
        if len(truth.outlines) == truth.frames:
            stack = FrameStack(lambda index: truth.outlines[index](), image.shape, np.dtype(np.int32))
            given.append((image_from_array(stack, image.axes, source=f"outlines of {image.source}"), LOST))
        for masks, lost in given:
            for features, links in training_examples(image, masks, truth, dropped=lost):
                yield Example(features.astype(np.float32), links.astype(np.int32), scaled=True)

    def places(self, truth: NDArray[Any]) -> Places:
        """Offer one place, drawn as often as there are candidates."""
        return Places(np.array([float(truth.shape[-1])]))

    def window(
        self,
        pixels: ScaledPixels,
        truth: NDArray[Any],
        place: int,
        chance: NDArray[np.float64],
        crop: tuple[int, ...],
        augmentation: Augmentation,
    ) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Read a stretch of candidates; where there are fewer, the truth of the rest is unknown (−1)."""
        (length,) = crop
        start = int(chance[0] * max(pixels.shape[0] - length + 1, 1))
        region = slice(start, min(start + length, pixels.shape[0]))
        features = pixels.read((region,))
        known = features.shape[1]
        window = np.zeros((features.shape[0], length), np.float32)
        window[:, :known] = features
        links = np.full((truth.shape[0], length), -1, np.int64)
        links[:, :known] = truth[:, region]
        return window, links

    def vary(
        self,
        images: Tensor,
        truth: Tensor,
        crop: tuple[int, ...],
        augmentation: Augmentation,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Leave the features as they are: they do not depend on how the movie is turned or scaled."""
        return images, truth
