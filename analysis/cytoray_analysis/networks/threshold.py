"""Objects by rule: a network without weights that divides what is bright where it is narrow."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_GAIN = 8.0  # logit of a pixel that is as bright as the mean of all bright ones
_BLUR = 1.0  # standard deviation of the Gaussian that smooths the image, in pixels
_DISTANCE_BLUR = 2.0  # of the one for the map of distances: more merges parts of objects, less divides rough ones
_STEP = 5  # pixels along each axis in which the highest distance is looked for


class Threshold(nn.Module):
    """Outlines bright objects on a dark background, as foreground and offsets of an instance segmentation.

    Images are scaled so that their threshold is 0 (``scaling: {method: otsu}``). A pixel is foreground where the image,
    slightly blurred, is above it. Each offset leads uphill on the map of distances to the background, to the middle of
    an object: a watershed in which every pixel decides alone, within a bounded neighbourhood, so that it does not
    matter how an image is cut.

    Parameters
    ----------
    inputs
        1: images have one channel.
    outputs
        3: foreground, and the offset along Y and X.
    farthest
        Distances are computed up to this many pixels: half the width of the largest objects.
    offset_unit
        As in :class:`~cytoray_analysis.tasks.segmentation.InstanceSegmentation`.

    Raises
    ------
    ValueError
        `inputs`, `outputs` or `farthest` is out of range.
    """

    stride = 1

    def __init__(self, *, inputs: int = 1, outputs: int = 3, farthest: int = 48, offset_unit: float = 16.0) -> None:
        super().__init__()
        if (inputs, outputs) != (1, 3) or farthest < 1:
            raise ValueError(f"expected 1 input, 3 outputs and a distance, got {inputs}, {outputs} and {farthest}")
        self.farthest = farthest
        self.offset_unit = offset_unit
        self.smooth, self.smooth_distance = _gaussian(_BLUR), _gaussian(_DISTANCE_BLUR)
        self.doublings = math.ceil(math.log2(max(farthest / _STEP, 1)))
        self.halo = len(self.smooth) // 2 + farthest + len(self.smooth_distance) // 2 + _STEP * 2**self.doublings

    def bytes_per_pixel(self, item: int) -> int:
        """Peak memory of inference per pixel, in bytes, for features of `item` bytes."""
        return 8 * item + 32

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 1, Y, X) to (B, 3, Y, X): logit of the foreground, and offsets in units of `offset_unit`."""
        foreground = _GAIN * _blurred(image.float(), self.smooth)
        distance = _blurred(_distances(foreground > 0, self.farthest), self.smooth_distance)
        height, width = image.shape[-2:]
        # The place of the highest distance near each pixel, then near that one, and so on.
        _, place = functional.max_pool2d(distance, 2 * _STEP + 1, 1, _STEP, return_indices=True)
        place = place.flatten(1)
        for _ in range(self.doublings):
            place = place.gather(1, place)
        place = place.view(-1, 1, height, width)
        rows = torch.div(place, width, rounding_mode="floor") - torch.arange(height, device=image.device).view(-1, 1)
        columns = place % width - torch.arange(width, device=image.device)
        return torch.cat((foreground, rows / self.offset_unit, columns / self.offset_unit), dim=1).to(image)


def _distances(inside: Tensor, farthest: int) -> Tensor:
    """Return the distance of each pixel to the nearest one outside, (B, 1, Y, X) in pixels, at most `farthest`.

    By lower envelopes of parabolas along one axis, then the other (Felzenszwalb & Huttenlocher, Theory of Computing 8,
    415, 2012), within the largest distance only.
    """
    far = float(2 * farthest**2)  # beyond the farthest
    squares = inside.float() * far
    for axis in (2, 3):
        reach = (0, 0, farthest, farthest) if axis == 2 else (farthest, farthest, 0, 0)
        padded = functional.pad(squares, reach, value=far)
        size = squares.shape[axis]
        for shift in range(2 * farthest + 1):
            squares = torch.minimum(squares, padded.narrow(axis, shift, size) + float((shift - farthest) ** 2))
    return squares.sqrt().clamp(max=farthest)


def _gaussian(sigma: float) -> Tensor:
    reach = math.ceil(3 * sigma)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    return weights / weights.sum()


def _blurred(image: Tensor, weights: Tensor) -> Tensor:
    """Convolve with `weights` along both axes."""
    weights, reach = weights.to(image), len(weights) // 2
    rows = functional.conv2d(functional.pad(image, (0, 0, reach, reach), mode="replicate"), weights.view(1, 1, -1, 1))
    return functional.conv2d(functional.pad(rows, (reach, reach, 0, 0), mode="replicate"), weights.view(1, 1, 1, -1))
