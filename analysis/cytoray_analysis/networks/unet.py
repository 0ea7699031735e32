"""A residual U-Net for two or three dimensions whose outputs depend on a bounded neighbourhood only.

The image enters at half resolution (space to depth) and leaves at full resolution (depth to space): the
costly full-resolution convolutions of the classical U-Net (Ronneberger et al., MICCAI 2015, arXiv:1505.04597)
are spent where they are four times cheaper. Normalisation is batch norm, a constant at inference, so that an
answer does not depend on how the image was cut.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

_CONVOLUTION: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_NORM: dict[int, type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class ConvolutionNorm(nn.Sequential):
    """A 3-wide convolution without bias, then batch norm."""

    def __init__(self, dimensions: int, inputs: int, outputs: int, width: int = 3) -> None:
        super().__init__(
            _CONVOLUTION[dimensions](inputs, outputs, width, padding=width // 2, bias=False),
            _NORM[dimensions](outputs),
        )


class ResidualBlock(nn.Module):
    """Two 3-wide convolutions with a shortcut (He et al., arXiv:1512.03385)."""

    def __init__(self, dimensions: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = ConvolutionNorm(dimensions, inputs, outputs)
        self.second = ConvolutionNorm(dimensions, outputs, outputs)
        self.shortcut: nn.Module = (
            nn.Identity() if inputs == outputs else ConvolutionNorm(dimensions, inputs, outputs, width=1)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, inputs, spatial…) to (B, outputs, spatial…)."""
        inner = functional.relu(self.first(features), inplace=True)
        return functional.relu(self.second(inner).add_(self.shortcut(features)), inplace=True)


class UNet(nn.Module):
    """A residual U-Net with a space-to-depth stem.

    Parameters
    ----------
    dimensions
        2 for images (B, C, Y, X), 3 for volumes (B, C, Z, Y, X).
    inputs, outputs
        Channels of the image and of the dense output.
    widths
        Feature channels per level, finest first. Level ``i`` works at stride ``2 ** (i + 1)``.
    """

    def __init__(
        self, *, dimensions: int = 2, inputs: int, outputs: int, widths: Sequence[int] = (32, 64, 128, 256)
    ) -> None:
        super().__init__()
        self.dimensions = dimensions
        self.inputs, self.outputs, self.widths = inputs, outputs, tuple(widths)
        self.levels = len(widths)
        patch = 2**dimensions
        self.stem = ConvolutionNorm(dimensions, inputs * patch, widths[0])
        self.down = nn.ModuleList(
            ResidualBlock(dimensions, widths[max(level - 1, 0)], widths[level]) for level in range(self.levels)
        )
        coarse_first = list(reversed(range(self.levels - 1)))
        self.narrow = nn.ModuleList(
            ConvolutionNorm(dimensions, widths[level + 1], widths[level], width=1) for level in coarse_first
        )
        self.up = nn.ModuleList(ResidualBlock(dimensions, widths[level], widths[level]) for level in coarse_first)
        self.head = _CONVOLUTION[dimensions](widths[0], outputs * patch, 1)

    @property
    def stride(self) -> int:
        """Size, in pixels, that the sides of an input must be a multiple of."""
        return int(2**self.levels)

    @property
    def halo(self) -> int:
        """Distance, in pixels, beyond which the input cannot change an output; a multiple of the stride.

        A 3-wide convolution at stride ``s`` reaches ``s`` pixels further; pooling and unpooling reach within
        one cell of their stride, which the round-up to a multiple of the stride and one stride more cover.
        """
        reach = 2  # the stem
        for level in range(self.levels):
            reach += 2 * 2 ** (level + 1)
            if level < self.levels - 1:
                reach += 2 * 2 ** (level + 1)
        return (-(-reach // self.stride) + 1) * self.stride

    def bytes_per_pixel(self, item: int) -> int:
        """Peak memory of inference per input pixel, in bytes, for features of `item` bytes.

        The finest decoder block holds four feature maps at half resolution; image and outputs have the full one.
        """
        return int(4 * self.widths[0] / 2**self.dimensions * item + (self.inputs + 2 * self.outputs) * (4 + item))

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, inputs, spatial…) to (B, outputs, spatial…); every side is a multiple of :attr:`stride`."""
        features = functional.relu(self.stem(space_to_depth(image, self.dimensions)), inplace=True)
        skipped: list[Tensor] = []
        pool = functional.max_pool2d if self.dimensions == 2 else functional.max_pool3d
        for level, block in enumerate(self.down):
            features = block(features if level == 0 else pool(features, 2))
            skipped.append(features)
        skipped.pop()
        for narrow, block in zip(self.narrow, self.up, strict=True):
            finer = functional.interpolate(narrow(features), scale_factor=2.0, mode="nearest")
            features = block(finer.add_(skipped.pop()))
        return depth_to_space(self.head(features), self.dimensions)


def space_to_depth(image: Tensor, dimensions: int) -> Tensor:
    """Fold every 2-wide cell of the spatial axes into channels: (B, C, 2n, …) to (B, C·2^d, n, …)."""
    if dimensions == 2:
        return functional.pixel_unshuffle(image, 2)
    batch, channels, depth, height, width = image.shape
    cells = image.reshape(batch, channels, depth // 2, 2, height // 2, 2, width // 2, 2)
    return cells.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(batch, channels * 8, depth // 2, height // 2, width // 2)


def depth_to_space(features: Tensor, dimensions: int) -> Tensor:
    """Undo :func:`space_to_depth`."""
    if dimensions == 2:
        return functional.pixel_shuffle(features, 2)
    batch, channels, depth, height, width = features.shape
    cells = features.reshape(batch, channels // 8, 2, 2, 2, depth, height, width)
    return cells.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(batch, channels // 8, depth * 2, height * 2, width * 2)
