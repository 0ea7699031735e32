"""A small network that scores each candidate separately."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class PairNetwork(nn.Module):
    """A multi-layer perceptron as 1-wide convolutions over a table of candidates.

    The first layer, a batch norm without weights, brings features of any unit to one scale.

    Parameters
    ----------
    inputs
        Features per candidate.
    outputs
        Logits per candidate.
    widths
        Units of each hidden layer.
    dropout
        Share of the features that are hidden in training, for all candidates of an example at once, 0 to 1: what
        one microscope shows, another may not.
    """

    stride = 1
    halo = 0

    def __init__(self, *, inputs: int, outputs: int, widths: Sequence[int] = (64, 64), dropout: float = 0.0) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.BatchNorm1d(inputs, affine=False), nn.Dropout1d(dropout)]
        before = inputs
        for width in widths:
            layers += [nn.Conv1d(before, width, 1), nn.ReLU(inplace=True)]
            before = width
        self.layers = nn.Sequential(*layers, nn.Conv1d(before, outputs, 1))
        self.widest = max((inputs, *widths))

    def bytes_per_pixel(self, item: int) -> int:
        """Peak memory of inference per candidate, in bytes, for features of `item` bytes."""
        return 2 * self.widest * item

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, inputs, N) to (B, outputs, N)."""
        outputs: Tensor = self.layers(features)
        return outputs
