"""Residual networks (He et al., CVPR 2016, arXiv:1512.03385), small enough for cells, in two and three dimensions.

They are made of the U-Net's own blocks, so that one code serves images and volumes, batch norms fold into the
convolutions at inference, and the U-Net's encoder can be the trunk of a classifier.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from cytoray_analysis.networks.classifier import Classifier, PooledHead, max_pool
from cytoray_analysis.networks.unet import ConvolutionNorm, ResidualBlock, space_to_depth, strides_of


class ResNet(Classifier):
    """A residual network with a narrow first convolution, for windows of 32 to 256 pixels.

    Parameters
    ----------
    dimensions
        2 for windows (B, C, Y, X), 3 for (B, C, Z, Y, X).
    inputs, outputs
        Channels of the image, and classes.
    widths
        Feature channels per stage; stage ``i`` works at stride ``2 ** (i + 1)``.
    blocks
        Residual blocks per stage, of two convolutions each.
    dropout
        Share of the pooled features that a training step does not see.
    mirrors
        Whether an answer is the mean over four mirror images of the window.
    """

    trunk = ("stem", "stages")
    entrance = "stem.0.weight"

    def __init__(
        self,
        *,
        dimensions: int = 2,
        inputs: int,
        outputs: int,
        widths: Sequence[int] = (32, 64, 128, 256),
        blocks: int | Sequence[int] = 2,
        dropout: float = 0.2,
        mirrors: bool = False,
    ) -> None:
        super().__init__()
        self.dimensions, self.inputs, self.widths, self.mirrors = dimensions, inputs, tuple(widths), mirrors
        counts = [blocks] * len(widths) if isinstance(blocks, int) else list(blocks)
        self.stem = ConvolutionNorm(dimensions, inputs, widths[0])
        stages = []
        before = widths[0]
        for width, count in zip(widths, counts, strict=True):
            inner = [ResidualBlock(dimensions, before if index == 0 else width, width) for index in range(count)]
            stages.append(nn.Sequential(*inner))
            before = width
        self.stages = nn.ModuleList(stages)
        self.head: PooledHead = PooledHead(before, outputs, dropout)

    def bytes_per_pixel(self, item: int) -> int:
        """Peak memory of inference per input pixel, in bytes, for features of `item` bytes."""
        return self.inputs * (4 + item) + 2 * self.widths[0] * item

    def features(self, window: Tensor) -> Tensor:
        """Map windows (B, inputs, spatial…) to feature maps (B, widths[-1], spatial / 2^stages…)."""
        maps: Tensor = functional.relu(self.stem(window), inplace=True)
        for stage in self.stages:
            maps = stage(max_pool(maps, (2,) * self.dimensions))
        return maps


class UNetEncoder(Classifier):
    """The coarsening half of :class:`~cytoray_analysis.networks.unet.UNet` as a classifier.

    Its parameters are named as the U-Net's (``stem.*``, ``down.*``), so that what a segmentation model has learnt can
    be loaded into it.

    Parameters
    ----------
    dimensions
        2 for windows (B, C, Y, X), 3 for (B, C, Z, Y, X).
    inputs, outputs
        Channels of the image, and classes.
    widths
        Feature channels per level, as in the U-Net; fewer levels take only its finer ones.
    strides
        As in the U-Net: how many times coarser each level is than the one above it, per spatial axis.
    dropout
        Share of the pooled features that a training step does not see.
    mirrors
        Whether an answer is the mean over four mirror images of the window.
    """

    trunk = ("stem", "down")
    entrance = "stem.0.weight"

    def __init__(
        self,
        *,
        dimensions: int = 2,
        inputs: int,
        outputs: int,
        widths: Sequence[int] = (32, 64, 128, 256),
        strides: Sequence[Sequence[int]] | None = None,
        dropout: float = 0.2,
        mirrors: bool = False,
    ) -> None:
        super().__init__()
        self.dimensions, self.inputs, self.widths, self.mirrors = dimensions, inputs, tuple(widths), mirrors
        self.strides = strides_of(strides, len(widths), dimensions)
        self.stem = ConvolutionNorm(dimensions, inputs * math.prod(self.strides[0]), widths[0])
        self.down = nn.ModuleList(
            ResidualBlock(dimensions, widths[max(level - 1, 0)], widths[level]) for level in range(len(widths))
        )
        self.head: PooledHead = PooledHead(widths[-1], outputs, dropout)

    def bytes_per_pixel(self, item: int) -> int:
        """Peak memory of inference per input pixel, in bytes, for features of `item` bytes."""
        return 2 * self.inputs * (4 + item) + 4 * self.widths[0] * item // math.prod(self.strides[0])

    def features(self, window: Tensor) -> Tensor:
        """Map windows (B, inputs, spatial…) to feature maps (B, widths[-1], spatial / 2^levels…)."""
        first = self.strides[0]
        missing = [-length % step for length, step in zip(window.shape[2:], first, strict=True)]
        whole = functional.pad(window, [extra for after in reversed(missing) for extra in (0, after)], mode="replicate")
        maps: Tensor = functional.relu(self.stem(space_to_depth(whole, first)), inplace=True)
        for level, block in enumerate(self.down):
            maps = block(maps if level == 0 else max_pool(maps, self.strides[level]))
        return maps
