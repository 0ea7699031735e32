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
    """One table per pair of frames; sequences of candidates are sampled from it.

    A network scores each candidate separately, so the composition of a sequence does not matter.
    """

    leading_axis = "T"
    windowed = False

    def dimensions(self, spatial: int) -> int:
        """Return one axis for a sequence of candidates."""
        return 1

    def inputs(self, model_input: ModelInput) -> int:
        """Count the features."""
        return FEATURES

    def cut(self, image: Image, truth: Lineage, objects: Any, model_input: ModelInput) -> Iterator[Example]:
        """Yield the features of the candidate links of each pair of frames (F, N), and their truth (M, N).

        If outlines of every frame are known in addition to the given masks, their candidates are also yielded, with
        some objects removed at random: so a linker learns from small markers and whole cells, and about lost objects.
        """
        given = [(objects, 0.0)]
        if len(truth.outlines) == truth.frames:
            stack = FrameStack(lambda index: truth.outlines[index](), image.shape, np.dtype(np.int32))
            given.append((image_from_array(stack, image.axes, source=f"outlines of {image.source}"), LOST))
        for masks, lost in given:
            for features, links in training_examples(image, masks, truth, dropped=lost):
                yield Example(features.astype(np.float32), links.astype(np.int32), scaled=True)

    def places(self, truth: NDArray[Any]) -> Places:
        """Offer one place, with a weight in proportion to the candidates; each sequence has the same length."""
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
        """Read a sequence of candidates; after the last one of the table follows the first, also in shorter tables.

        So every candidate is sampled with the same probability, whatever its position and the length of its table. The
        truth of an empty table is unknown (−1).
        """
        (length,) = crop
        count = pixels.shape[0]
        start = int(chance[0] * count)
        regions = [slice(start, min(start + length, count))]
        if start and length > count - start:
            regions.append(slice(0, min(start, length - (count - start))))
        features = np.concatenate([pixels.read((region,)) for region in regions], axis=1)
        links = np.concatenate([truth[:, region] for region in regions], axis=1).astype(np.int64)
        if not count:
            features, links = np.zeros((features.shape[0], 1), np.float32), np.full((truth.shape[0], 1), -1, np.int64)
        if links.shape[1] == length:
            return features, links
        again = np.arange(length) % links.shape[1]
        return features[:, again], links[:, again]

    def vary(
        self,
        images: Tensor,
        truth: Tensor,
        crop: tuple[int, ...],
        augmentation: Augmentation,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Return the features unchanged: they do not depend on rotation or scale of the movie."""
        return images, truth
