"""Losses between a predicted image and the true one: differences of pixels and of structure.

Each takes predicted and true images, (B, K, spatial…) float32, and which pixels of the true one are known; where they
are not, the two agree. It is a sum, over known pixels or over crops, and 0 for a perfect prediction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from cytoray_analysis.errors import RecipeError

# Of the structural similarity: Wang et al., IEEE Trans Image Process 13, 600 (2004).
_WINDOW, _SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03
# Of its scales, finest first: Wang, Simoncelli and Bovik, Asilomar Conf Signals Syst Comput 2003.
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_RANGE = 10.0  # of a scaled target, in its standard deviations; stains reach 5 to 20


@dataclass(frozen=True)
class Difference:
    """A loss: its sum over so many crops, and what its mean is over, known pixels or crops."""

    total: Callable[[Tensor, Tensor, Tensor], Tensor]
    per: Literal["pixel", "crop"]


def sum_of_known(values: Tensor, known: Tensor) -> Tensor:
    """Add up over the known pixels."""
    return torch.where(known, values, 0.0).sum()


def squared_error(predicted: Tensor, true: Tensor, known: Tensor) -> Tensor:
    """Return the squared differences; the best answer to their mean is the mean of what may be true."""
    return sum_of_known((predicted - true) ** 2, known)


def absolute_error(predicted: Tensor, true: Tensor, known: Tensor) -> Tensor:
    """Return the absolute differences; the best answer to their mean is the median of what may be true."""
    return sum_of_known((predicted - true).abs(), known)


def multi_scale_dissimilarity(predicted: Tensor, true: Tensor, known: Tensor) -> Tensor:
    """Return one minus the multi-scale structural similarity, of each crop.

    Over as many of the five scales as the crop has room for; volumes plane by plane, so that planes may be further
    apart than pixels.

    Raises
    ------
    RecipeError
        The crop is smaller than the window.
    """
    crops = len(predicted)
    if predicted.ndim == 5:
        predicted, true = (image.transpose(1, 2).flatten(0, 1) for image in (predicted, true))
    side = min(predicted.shape[-2:])
    if side < _WINDOW:
        raise RecipeError(
            f"expected crops of at least {_WINDOW} pixels for the loss ms_ssim, got {side}",
            field="training.crop_size",
        )
    scales = min(len(_SCALE_WEIGHTS), int(math.log2(side / _WINDOW)) + 1)
    # The comparison of brightness is made for intensities of at least zero.
    darkest = true.amin(dim=(-2, -1), keepdim=True)
    predicted, true = predicted - darkest, true - darkest
    similarity = predicted.new_ones(predicted.shape[:2])
    for scale, weight in enumerate(_SCALE_WEIGHTS[:scales]):
        whole, contrast = structural_similarity(predicted, true)
        each = (whole if scale == scales - 1 else contrast).mean(dim=(-2, -1))
        # A power below one has no finite slope at zero, and none at all below.
        similarity = similarity * each.clamp(min=1e-3) ** (weight / sum(_SCALE_WEIGHTS[:scales]))
        predicted, true = functional.avg_pool2d(predicted, 2), functional.avg_pool2d(true, 2)
    return crops * (1 - similarity.mean())


def structural_similarity(predicted: Tensor, true: Tensor, span: float = _RANGE) -> tuple[Tensor, Tensor]:
    """Compare two images window by window.

    Parameters
    ----------
    predicted, true
        (B, K, Y, X).
    span
        Range of the intensities.

    Returns
    -------
    tuple of Tensor
        The structural similarity, and that of contrast and structure alone, (B, K, Y − 10, X − 10).
    """
    moments = torch.cat((predicted, true, predicted**2, true**2, predicted * true), dim=1)
    mean_p, mean_t, square_p, square_t, product = _windowed(moments).chunk(5, dim=1)
    both = mean_p * mean_t
    contrast = (2 * (product - both) + (_K2 * span) ** 2) / (
        square_p - mean_p**2 + square_t - mean_t**2 + (_K2 * span) ** 2
    )
    brightness = (2 * both + (_K1 * span) ** 2) / (mean_p**2 + mean_t**2 + (_K1 * span) ** 2)
    return brightness * contrast, contrast


def _windowed(images: Tensor) -> Tensor:
    """Average over a Gaussian window, wherever it lies inside; as matrix products, faster than convolutions."""
    rows, columns = images.shape[-2:]
    return _averages(rows, images).T @ images @ _averages(columns, images)


def _averages(length: int, like: Tensor) -> Tensor:
    """Return the matrix that averages an axis of `length` pixels, (length, length − 10)."""
    pixel = torch.arange(length, dtype=like.dtype, device=like.device)
    distance = pixel.unsqueeze(1) - pixel[: length - _WINDOW + 1] - _WINDOW // 2
    weights = torch.exp(-0.5 * (distance / _SIGMA) ** 2) * (distance.abs() <= _WINDOW // 2)
    return weights / weights.sum(0)


LOSSES: dict[str, Difference] = {
    "mse": Difference(squared_error, "pixel"),
    "l1": Difference(absolute_error, "pixel"),
    "ms_ssim": Difference(multi_scale_dissimilarity, "crop"),
}
