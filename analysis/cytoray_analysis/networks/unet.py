"""A residual U-Net for two or three dimensions whose outputs depend on a bounded neighbourhood only.

The image enters at half resolution (space to depth) and leaves at full resolution: the costly full-resolution
convolutions of the classical U-Net (Ronneberger et al., MICCAI 2015, arXiv:1505.04597) are spent where they are four
times cheaper. Outputs are interpolated to full resolution and sharpened there, so that all pixels of a cell of the
finest feature map have the same weights and outlines have no teeth (docs/decisions/0011-outlines.md). Along an axis of
coarser pixels, such as Z of a confocal stack, the image may keep its resolution for longer (Isensee et al., Nat Methods
18, 203 (2021)). Normalisation is batch norm, a constant at inference, so that an answer does not depend on how the
image was cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

_CONVOLUTION: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_NORM: dict[int, type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}

_LINEAR = {2: "bilinear", 3: "trilinear"}
_SHARPEN = 5  # width of the last convolution


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


def strides_of(strides: Sequence[Sequence[int]] | None, levels: int, dimensions: int) -> tuple[tuple[int, ...], ...]:
    """Return the strides of each level, by default 2 along every axis; ValueError where their number is another."""
    steps = tuple(tuple(step) for step in strides or [(2,) * dimensions] * levels)
    if len(steps) != levels or any(len(step) != dimensions or min(step) < 1 for step in steps):
        raise ValueError(f"expected strides for {levels} levels of {dimensions} axes, got {strides}")
    return steps


class UNet(nn.Module):
    """A residual U-Net with a space-to-depth stem.

    Parameters
    ----------
    dimensions
        2 for images (B, C, Y, X), 3 for volumes (B, C, Z, Y, X).
    inputs, outputs
        Channels of the image and of the dense output.
    widths
        Feature channels per level, finest first.
    strides
        How many times coarser each level is than the one above it (the first: than the image), per spatial axis, such
        as ``[[1, 2, 2], [2, 2, 2]]`` where pixels are twice as long along Z; 2 along every axis by default.
    finish
        ``"pixels"``: outputs are interpolated linearly to full resolution, and each is sharpened there by a 5-wide
        convolution. ``"cells"``: each pixel of a cell of the finest feature map has weights of its own (depth to
        space), as in models of earlier versions.

    Attributes
    ----------
    trunk
        Names of the children whose weights can come from another U-Net: all of them.
    entrance
        Name of the weight that the image's channels meet first, whose inputs transfer adapts.

    Raises
    ------
    ValueError
        `strides` has another number of levels than `widths`, or of axes than `dimensions`; `finish` is unknown.
    """

    trunk = ("stem", "down", "narrow", "up", "head", "sharpen")
    entrance = "stem.0.weight"

    def __init__(
        self,
        *,
        dimensions: int = 2,
        inputs: int,
        outputs: int,
        widths: Sequence[int] = (32, 64, 128, 256),
        strides: Sequence[Sequence[int]] | None = None,
        finish: Literal["pixels", "cells"] = "cells",
    ) -> None:
        super().__init__()
        if finish not in ("pixels", "cells"):
            raise ValueError(f"expected the finish pixels or cells, got {finish!r}")
        self.dimensions, self.finish = dimensions, finish
        self.inputs, self.outputs, self.widths = inputs, outputs, tuple(widths)
        self.levels = len(widths)
        self.strides = strides_of(strides, self.levels, dimensions)
        patch = math.prod(self.strides[0])
        self.stem = ConvolutionNorm(dimensions, inputs * patch, widths[0])
        self.down = nn.ModuleList(
            ResidualBlock(dimensions, widths[max(level - 1, 0)], widths[level]) for level in range(self.levels)
        )
        coarse_first = list(reversed(range(self.levels - 1)))
        self.narrow = nn.ModuleList(
            ConvolutionNorm(dimensions, widths[level + 1], widths[level], width=1) for level in coarse_first
        )
        self.up = nn.ModuleList(ResidualBlock(dimensions, widths[level], widths[level]) for level in coarse_first)
        convolution = _CONVOLUTION[dimensions]
        self.head = convolution(widths[0], outputs * patch if finish == "cells" else outputs, 1)
        if finish == "pixels":
            self.sharpen = convolution(outputs, outputs, _SHARPEN, groups=outputs, bias=False)
            nn.init.zeros_(self.sharpen.weight)  # at first every output stays as it is
            nn.init.ones_(self.sharpen.weight.flatten(1)[:, _SHARPEN**dimensions // 2])

    @property
    def channels(self) -> int:
        """Channels that the entrance takes."""
        return self.inputs

    @property
    def stride(self) -> tuple[int, ...]:
        """Size along each axis, in pixels, that the sides of an input must be a multiple of."""
        return tuple(math.prod(steps) for steps in zip(*self.strides, strict=True))

    @property
    def halo(self) -> tuple[int, ...]:
        """Distance along each axis, in pixels, beyond which the input cannot change an output.

        A multiple of the stride. A 3-wide convolution where cells are ``s`` pixels wide reaches ``s`` pixels further;
        pooling and unpooling reach within one cell, which the round-up to a multiple of the stride and one stride
        more cover.
        """
        return tuple(self._halo(steps) for steps in zip(*self.strides, strict=True))

    def _halo(self, steps: Sequence[int]) -> int:
        cells = [math.prod(steps[: level + 1]) for level in range(self.levels)]
        reach = cells[0] + 2 * sum(cells) + 2 * sum(cells[:-1])  # the stem, the way down, the way up
        reach += cells[0] + _SHARPEN // 2 if self.finish == "pixels" else 0  # the next cell, for the interpolation
        return (-(-reach // cells[-1]) + 1) * cells[-1]

    def bytes_per_pixel(self, item: int) -> int:
        """Peak memory of inference per input pixel, in bytes, for features of `item` bytes.

        Either the finest feature maps (six at their resolution, spare memory of the allocator included: measured with
        maps of 16 bytes per pixel 98 of these 102 bytes, of 8 bytes 49 of 54) or the outputs, in three copies.
        """
        patch = math.prod(self.strides[0])
        features = 6 * self.widths[0] / patch * item
        return int(self.inputs * (4 + item) + max(features, self.outputs * (item + 8)))

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, inputs, spatial…) to (B, outputs, spatial…); every side is a multiple of :attr:`stride`."""
        features = functional.relu(self.stem(space_to_depth(image, self.strides[0])), inplace=True)
        skipped: list[Tensor] = []
        pool = functional.max_pool2d if self.dimensions == 2 else functional.max_pool3d
        for level, block in enumerate(self.down):
            features = block(features if level == 0 else pool(features, self.strides[level]))
            skipped.append(features)
        skipped.pop()
        for narrow, block, step in zip(self.narrow, self.up, reversed(self.strides[1:]), strict=True):
            finer = functional.interpolate(narrow(features), scale_factor=[float(s) for s in step], mode="nearest")
            features = block(finer.add_(skipped.pop()))
        features = self.head(features)
        if self.finish == "cells":
            return depth_to_space(features, self.strides[0])
        finer = functional.interpolate(
            features, scale_factor=[float(s) for s in self.strides[0]], mode=_LINEAR[self.dimensions]
        )
        sides = (_SHARPEN // 2,) * (2 * self.dimensions)
        answer: Tensor = self.sharpen(functional.pad(finer, sides, mode="replicate"))
        return answer


def space_to_depth(image: Tensor, step: Sequence[int]) -> Tensor:
    """Fold the pixels of every cell of the spatial axes into channels.

    Parameters
    ----------
    image
        (B, C, spatial…), sides a multiple of `step`.
    step
        Size of a cell along each axis.

    Returns
    -------
    Tensor
        (B, C · pixels of a cell, cells…).
    """
    if tuple(step) == (2, 2):
        return functional.pixel_unshuffle(image, 2)
    batch, channels, *sides = image.shape
    axes = len(step)
    split = [part for side, width in zip(sides, step, strict=True) for part in (side // width, width)]
    inner, outer = [3 + 2 * axis for axis in range(axes)], [2 + 2 * axis for axis in range(axes)]
    cells = image.reshape(batch, channels, *split).permute(0, 1, *inner, *outer)
    return cells.reshape(batch, channels * math.prod(step), *split[::2])


def depth_to_space(features: Tensor, step: Sequence[int]) -> Tensor:
    """Undo :func:`space_to_depth`."""
    if tuple(step) == (2, 2):
        return functional.pixel_shuffle(features, 2)
    batch, channels, *sides = features.shape
    axes = len(step)
    cells = features.reshape(batch, channels // math.prod(step), *step, *sides)
    order = [part for axis in range(axes) for part in (2 + axes + axis, 2 + axis)]
    whole = [side * width for side, width in zip(sides, step, strict=True)]
    return cells.permute(0, 1, *order).reshape(batch, channels // math.prod(step), *whole)
