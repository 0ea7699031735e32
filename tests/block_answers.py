"""The answers to the blocks of an image, put together as a job does it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.inference.blocks import Blocks
from cytoray_analysis.numbering import all_objects, image_numbers
from cytoray_analysis.tasks import Decoded


def joined(blocks: Blocks, parts: Sequence[Decoded]) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """Return the labels of the image, and the confidence of its objects, entry 0 meaning nothing."""
    objects, confidence = all_objects(
        [part.identities for part in parts if part.identities is not None],
        [part.confidence for part in parts if part.confidence is not None],
    )
    found = np.zeros(blocks.shape, np.uint32)
    for tile, part in zip(blocks.tiles, parts, strict=True):
        assert part.identities is not None
        found[tile.core] = image_numbers(part.values, part.identities, objects)
    return found, confidence
