"""A small convolutional network: convolution, batch norm, pooling, dropout, and one linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from cytoray_analysis.networks.classifier import BATCH_NORM, CONVOLUTION, Classifier, PooledHead

_DROPOUT: dict[int, type[nn.Dropout2d] | type[nn.Dropout3d]] = {2: nn.Dropout2d, 3: nn.Dropout3d}
_POOLING: dict[str, dict[int, type[nn.Module]]] = {
    "max": {2: nn.MaxPool2d, 3: nn.MaxPool3d},
    "mean": {2: nn.AvgPool2d, 3: nn.AvgPool3d},
}


class CNN(Classifier):
    """Stages of convolutions, each stage at half the resolution of the one before.

    Parameters
    ----------
    dimensions
        2 for windows (B, C, Y, X), 3 for (B, C, Z, Y, X).
    inputs, outputs
        Channels of the image, and classes.
    widths
        Feature channels per stage.
    convolutions
        Convolutions per stage.
    kernel
        Width of a convolution in pixels, odd.
    pooling
        How each stage halves what it gives.
    batch_norm
        Whether a batch norm follows each convolution.
    dropout
        Share of the pooled features that a training step does not see.
    feature_dropout
        Share of whole feature maps that a training step does not see after each stage.
    mirrors
        Whether an answer is the mean over four mirror images of the window.
    """

    trunk = ("stages",)
    entrance = "stages.0.0.weight"

    def __init__(
        self,
        *,
        dimensions: int = 2,
        inputs: int,
        outputs: int,
        widths: Sequence[int] = (16, 32, 64, 128),
        convolutions: int = 1,
        kernel: int = 3,
        pooling: Literal["max", "mean"] = "max",
        batch_norm: bool = True,
        dropout: float = 0.2,
        feature_dropout: float = 0.0,
        mirrors: bool = False,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel: expected an odd number, got {kernel}")
        self.dimensions, self.inputs, self.widths, self.mirrors = dimensions, inputs, tuple(widths), mirrors
        stages: list[nn.Module] = []
        before = inputs
        for width in widths:
            layers: list[nn.Module] = []
            for _ in range(convolutions):
                layers.append(CONVOLUTION[dimensions](before, width, kernel, padding=kernel // 2, bias=not batch_norm))
                if batch_norm:
                    layers.append(BATCH_NORM[dimensions](width))
                layers.append(nn.ReLU(inplace=True))
                before = width
            layers.append(_POOLING[pooling][dimensions](2, ceil_mode=True))
            if feature_dropout > 0:
                layers.append(_DROPOUT[dimensions](feature_dropout))
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.head: PooledHead = PooledHead(before, outputs, dropout)

    def bytes_per_pixel(self, item: int) -> int:
        """Peak memory of inference per input pixel, in bytes, for features of `item` bytes."""
        return self.inputs * (4 + item) + 2 * self.widths[0] * item

    def features(self, window: Tensor) -> Tensor:
        """Map windows (B, inputs, spatial…) to feature maps (B, widths[-1], spatial / 2^stages…)."""
        maps: Tensor = self.stages(window)
        return maps
