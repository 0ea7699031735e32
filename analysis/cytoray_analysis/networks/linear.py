"""The simplest classifier: one linear layer on coarse pixels and the statistics of each channel.

What every other network must beat.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from cytoray_analysis.networks.classifier import Classifier


class LinearClassifier(Classifier):
    """Logistic regression on a coarse picture of the cell and on the intensities of its channels.

    Its inputs are normalised by a batch norm, which at inference is part of the linear map; the statistics are two
    per channel: mean and standard deviation.

    Parameters
    ----------
    dimensions
        2 for windows (B, C, Y, X), 3 for (B, C, Z, Y, X).
    inputs, outputs
        Channels of the image, and classes.
    side
        The window is averaged to this many pixels along each axis.
    dropout
        Share of the values that a training step does not see.
    """

    def __init__(self, *, dimensions: int = 2, inputs: int, outputs: int, side: int = 16, dropout: float = 0.0) -> None:
        super().__init__()
        self.dimensions, self.inputs, self.side = dimensions, inputs, side
        values = inputs * (side**dimensions + 2)
        self.norm = nn.BatchNorm1d(values)
        self.dropout = nn.Dropout(dropout)
        self.head: nn.Linear = nn.Linear(values, outputs)

    def bytes_per_pixel(self, item: int) -> int:
        """Peak memory of inference per input pixel, in bytes, for features of `item` bytes."""
        return 2 * self.inputs * (4 + item)

    def features(self, window: Tensor) -> Tensor:
        """Return the window itself: this network has no trunk."""
        return window

    def classify(self, features: Tensor) -> Tensor:
        """Map windows (B, inputs, spatial…) to logits (B, outputs)."""
        pool = functional.adaptive_avg_pool2d if self.dimensions == 2 else functional.adaptive_avg_pool3d
        coarse = pool(features, (self.side,) * self.dimensions).flatten(1)  # type: ignore[arg-type]
        spread, mean = torch.std_mean(features.flatten(2), dim=2, correction=0)
        values = torch.cat((coarse, mean, spread), dim=1)
        logits: Tensor = self.head(self.dropout(self.norm(values)))
        return logits
