"""Links by rule: a network without weights, which every linker that has learned must beat."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cytoray_analysis.tracking.candidates import FRAME_FEATURES, OBJECT_FEATURES, PAIR_FEATURES, feature_names

_NEVER = -20.0
_OVERLAP = PAIR_FEATURES.index("overlap")
_DISTANCE = PAIR_FEATURES.index("distance in radii")
_OTHER = PAIR_FEATURES.index("overlap of the target with another source")
_CLOSER = PAIR_FEATURES.index("distance over that of the next source")


class OverlapThenDistance(nn.Module):
    """Links what overlaps, then what is near.

    A link is the likelier the more two objects overlap, and where none does, the nearer they are: up to a cell's
    length. A division is likely where both daughters overlap the mother, or lie within two radii of her, and where
    no other object of the earlier frame overlaps them.

    Parameters
    ----------
    inputs
        Features per candidate, those of :func:`~cytoray_analysis.tracking.candidates.feature_names`.
    outputs
        Two: the logits of links and of divisions.

    Raises
    ------
    ValueError
        `inputs` or `outputs` is another number.
    """

    stride = 1
    halo = 0

    def __init__(self, *, inputs: int = len(feature_names()), outputs: int = 2) -> None:
        super().__init__()
        if (inputs, outputs) != (len(feature_names()), 2):
            raise ValueError(f"expected {len(feature_names())} inputs and 2 outputs, got {inputs} and {outputs}")

    def bytes_per_pixel(self, item: int) -> int:
        """Peak memory of inference per candidate, in bytes, for features of `item` bytes."""
        return 2 * len(feature_names()) * item

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, inputs, N) to (B, 2, N)."""
        pairs = len(PAIR_FEATURES)
        near, far = features[:, :pairs], features[:, pairs : 2 * pairs]
        begin = 2 * pairs + 3 * len(OBJECT_FEATURES)
        frame = features[:, begin : begin + len(FRAME_FEATURES)]
        link = _affinity(near) - 2.0 * frame[:, 0]
        both = torch.minimum(_affinity(near), _affinity(far))
        # What another object overlaps, or lies nearer to, is that object's.
        taken = torch.maximum(_elsewhere(near), _elsewhere(far))
        division = torch.where(frame[:, 1] > 0, both - taken, _NEVER)
        return torch.stack((link, division), dim=1)


def overlap_then_distance(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Judge candidates by :class:`OverlapThenDistance`: (F, N) float32 features to (2, N) logits."""
    with torch.inference_mode():
        judged: NDArray[np.float32] = OverlapThenDistance()(torch.from_numpy(features)[None])[0].numpy()
    return judged


def _affinity(pair: Tensor) -> Tensor:
    overlap, distance = pair[:, _OVERLAP], pair[:, _DISTANCE]
    return torch.where(overlap > 0, 2.0 + 6.0 * overlap, 2.0 - distance)


def _elsewhere(pair: Tensor) -> Tensor:
    return 8.0 * pair[:, _OTHER] + 4.0 * pair[:, _CLOSER].clamp(min=0.0)
