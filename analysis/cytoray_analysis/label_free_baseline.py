"""Label-free prediction without learning: how dark (or bright) the input is, as a model must beat it.

The input minus its blurred self, times −1 where cells are dark, less a threshold and nothing below it, blurred. Which
sign, how much blur and which threshold is chosen on training pairs, and then a straight line to the target's units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import DatasetError
from cytoray_analysis.tasks.image_scores import pearson, score_images

Pair = tuple[NDArray[Any], NDArray[Any]]

SIGNS = (-1, 1)
BACKGROUNDS = (15.0, 40.0)  # σ in pixels
THRESHOLDS = (0.0, 0.75, 1.5, 2.25)  # standard deviations of the input without its background
BLURS = (1.0, 2.0, 4.0, 8.0)  # σ in pixels
_PAIRS = 12
_SIDE = 512


@dataclass(frozen=True)
class Darkness:
    """A function from input to stain.

    Attributes
    ----------
    channel
        Channel (or plane) of the input that is looked at.
    sign
        −1 where the stain is in dark places, 1 where it is in bright ones.
    background, blur
        σ of the Gaussians that find the background and smooth the answer, in pixels.
    threshold
        In standard deviations of the input without its background.
    gain, offset
        Of the line to the target's own units.
    """

    channel: int
    sign: int
    background: float
    threshold: float
    blur: float
    gain: float = 1.0
    offset: float = 0.0

    def predict(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Predict one target channel (spatial…) float32 from an input (C, spatial…)."""
        lit = _above(_flattened(image[self.channel], self.background), self.sign, self.threshold)
        return _blurred(lit, self.blur) * np.float32(self.gain) + np.float32(self.offset)


def label_free_baseline(pairs: Sequence[Pair]) -> tuple[Darkness, ...]:
    """Choose the best function per target channel on training pairs.

    Parameters
    ----------
    pairs
        Inputs (C, spatial…) and targets (K, spatial…), NaN where unknown; at most 12 of them, spread over all, and of
        those a part of at most 512 pixels along each axis are looked at.

    Returns
    -------
    tuple of Darkness
        One per target channel: the highest mean Pearson correlation.

    Raises
    ------
    DatasetError
        There is no pair.
    """
    if not pairs:
        raise DatasetError("expected training pairs for the baseline, found none", field="data")
    places = np.unique(np.linspace(0, len(pairs) - 1, _PAIRS).round().astype(int))
    chosen = [_part(pairs[place]) for place in places]
    channels = range(chosen[0][0].shape[0])
    combinations = list(product(channels, SIGNS, BACKGROUNDS, THRESHOLDS, BLURS))
    targets = range(chosen[0][1].shape[0])
    scores = np.full((len(targets), len(combinations), len(chosen)), np.nan)
    for number, (image, target) in enumerate(chosen):
        flat = {(c, b): _flattened(image[c], b) for c, b in product(channels, BACKGROUNDS)}
        for index, (channel, sign, background, threshold, blur) in enumerate(combinations):
            predicted = _blurred(_above(flat[channel, background], sign, threshold), blur)
            for k in targets:
                scores[k, index, number] = pearson(predicted, target[k])
    means = np.nan_to_num(scores).mean(axis=2)
    return tuple(_fitted(Darkness(*combinations[int(np.argmax(means[k]))]), chosen, k) for k in targets)


def baseline_scores(
    training: Sequence[Pair], validation: Sequence[Pair], channels: Sequence[str] = ("target",)
) -> dict[str, float]:
    """Score the baseline, chosen on training pairs, on validation pairs, with the metrics of a model.

    Returns
    -------
    dict
        As :func:`cytoray_analysis.tasks.image_scores.score_images` gives it.
    """
    functions = label_free_baseline(training)
    answers = [np.stack([function.predict(image) for function in functions]) for image, _ in validation]
    return score_images(answers, [target for _, target in validation], channels)


def _part(pair: Pair) -> Pair:
    image, target = pair
    middle = tuple(
        slice((length - min(length, _SIDE)) // 2, (length + min(length, _SIDE)) // 2) for length in target.shape[1:]
    )
    return image[(slice(None), *middle)], target[(slice(None), *middle)]


def _fitted(function: Darkness, pairs: Sequence[Pair], channel: int) -> Darkness:
    """Fit the line to the target's units by least squares, over the known pixels of all pairs."""
    predicted = np.concatenate([function.predict(image).ravel() for image, _ in pairs]).astype(np.float64)
    true = np.concatenate([target[channel].ravel() for _, target in pairs]).astype(np.float64)
    known = np.isfinite(true)
    if not known.any() or np.ptp(predicted[known]) == 0:
        return function
    gain, offset = np.polyfit(predicted[known], true[known], 1)
    return replace(function, gain=float(gain), offset=float(offset))


def _flattened(pixels: NDArray[Any], background: float) -> NDArray[np.float32]:
    """Take away the background and divide by the standard deviation; zeros for a constant image."""
    values = pixels.astype(np.float32)
    values = values - _blurred(values, background)
    deviation = float(values.std())
    if deviation > 0:
        values /= np.float32(deviation)
    return values


def _above(flat: NDArray[np.float32], sign: int, threshold: float) -> NDArray[np.float32]:
    return np.asarray(np.maximum(flat * np.float32(sign) - np.float32(threshold), 0.0), np.float32)


def _blurred(values: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(values, sigma, truncate=3.0), np.float32)
