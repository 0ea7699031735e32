"""Agreement of predicted and true images: per image, then the mean over images.

Per image and channel, over the pixels whose truth is known (not NaN):

``pearson``
    Correlation of predicted and true pixels, −1 to 1. Gain and offset of either do not matter.
``ssim``
    Structural similarity (Wang et al., IEEE Trans Image Process 13, 600 (2004)): Gaussian window of σ = 1.5
    pixels, K1 = 0.01, K2 = 0.03, population covariance; the mean over pixels. Volumes plane by plane, so that
    planes may be further apart than pixels.
``psnr``
    10 log10(range² / mean squared error) in decibels, at most :data:`HIGHEST_PSNR`.
``nrmse``
    Root of the mean squared error over the standard deviation of the true image: 0 is perfect, and 1 is what
    the true image's own mean would score. Lower is better.

The range in ``ssim`` and ``psnr`` is that between the 0.1 and 99.9 percentiles of the true image (of all its pixels
where these are equal), so that one hot pixel does not decide it. An image whose truth is constant has neither range nor
correlation and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.column_names import unique_names
from cytoray_analysis.errors import ImageError

METRICS = ("pearson", "ssim", "psnr", "nrmse")
COVERAGE = "coverage68"
HIGHEST_PSNR = 100.0
RANGE = (0.1, 99.9)  # percentiles of the true image
_SSIM_SIGMA = 1.5
_SSIM_WINDOW = 11  # pixels that a window of that width takes


def metric_names(channels: Sequence[str], *, uncertainty: bool = False) -> tuple[str, ...]:
    """Return the names of all scores that :func:`score_images` gives, in its order."""
    single = [f"{metric}/{name}" for metric in METRICS for name in channels] if len(channels) > 1 else []
    return (*METRICS, *single, *((COVERAGE,) if uncertainty else ()))


def score_images(
    answers: Sequence[NDArray[Any]],
    truths: Sequence[NDArray[Any]],
    channels: Sequence[str],
    *,
    uncertainty: bool = False,
) -> dict[str, float]:
    """Score predicted images against true ones.

    Parameters
    ----------
    answers
        (K', spatial…) per image in the target's own units, K' at least K = ``len(channels)``: the predicted channels
        and, with `uncertainty`, as many standard deviations.
    truths
        (K, spatial…) per image, NaN where unknown.
    channels
        Names of the target's channels; of channels of one name the later ones get a number, such as ``yfp_2``.
    uncertainty
        Whether standard deviations are part of the answers.

    Returns
    -------
    dict
        ``pearson``, ``ssim``, ``psnr`` and ``nrmse`` as the module says, the mean over channels and images. With more
        than one channel also each separately, such as ``pearson/yfp``. With `uncertainty`, ``coverage68``: the share of
        pixels whose truth lies within one standard deviation of the prediction, 0.68 where errors are normal and their
        size is right. A score that no image has, such as that of constant truths, is absent.

    Raises
    ------
    ImageError
        An answer and its truth differ in shape.
    """
    names = unique_names(channels)
    per_image = np.full((len(truths), len(names), len(METRICS)), np.nan)
    coverages = np.full((len(truths), len(names)), np.nan)
    for index, (answer, truth) in enumerate(zip(answers, truths, strict=True)):
        wanted = (len(names) * (2 if uncertainty else 1), *truth.shape[1:])
        if len(truth) != len(names) or answer.shape[1:] != wanted[1:] or len(answer) < wanted[0]:
            raise ImageError(
                f"expected a prediction {wanted} of a target ({len(names)}, …), got {answer.shape} and {truth.shape}",
                field="target",
            )
        for channel in range(len(names)):
            per_image[index, channel] = _compare(answer[channel], truth[channel])
            if uncertainty:
                deviation = answer[len(names) + channel]
                coverages[index, channel] = _coverage(answer[channel], deviation, truth[channel])
    scores = {metric: _mean(per_image[:, :, place]) for place, metric in enumerate(METRICS)}
    if len(names) > 1:
        for place, metric in enumerate(METRICS):
            for channel, name in enumerate(names):
                scores[f"{metric}/{name}"] = _mean(per_image[:, channel, place])
    if uncertainty:
        scores[COVERAGE] = _mean(coverages)
    return {name: value for name, value in scores.items() if value is not None}


def pearson(answer: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the correlation of two arrays of one shape over the pixels known in `truth`; NaN where it is constant."""
    known = np.isfinite(truth)
    a, t = answer[known].astype(np.float64), truth[known].astype(np.float64)
    if t.size == 0 or np.ptp(t) == 0:
        return float("nan")
    if np.ptp(a) == 0:
        return 0.0
    a -= a.mean()
    t -= t.mean()
    return float(np.dot(a, t) / np.sqrt(np.dot(a, a) * np.dot(t, t)))


def true_range(truth: NDArray[Any]) -> float:
    """Return the range of a true image as ``ssim`` and ``psnr`` take it; 0 where it is constant."""
    known = truth[np.isfinite(truth)]
    if known.size == 0:
        return 0.0
    low, high = np.percentile(known, RANGE)
    return float(high - low) if high > low else float(np.ptp(known))


def _compare(answer: NDArray[Any], truth: NDArray[Any]) -> tuple[float, float, float, float]:
    """Return the four metrics of one channel of one image."""
    span = true_range(truth)
    if span == 0:
        return (float("nan"),) * 4
    known = np.isfinite(truth)
    error = answer[known].astype(np.float64) - truth[known].astype(np.float64)
    mean_square = float(np.mean(error**2))
    psnr = HIGHEST_PSNR if mean_square == 0 else min(HIGHEST_PSNR, 10 * float(np.log10(span**2 / mean_square)))
    normalised = float(np.sqrt(mean_square) / np.std(truth[known], dtype=np.float64))
    return pearson(answer, truth), _ssim(answer, truth, span), psnr, normalised


def _ssim(answer: NDArray[Any], truth: NDArray[Any], span: float) -> float:
    """Average structural similarity over the known pixels, plane by plane; NaN where a plane is too small for it."""
    from skimage.metrics import structural_similarity

    if min(truth.shape[-2:]) < _SSIM_WINDOW:
        return float("nan")
    total, count = 0.0, 0
    for true, predicted in zip(
        truth.reshape(-1, *truth.shape[-2:]), answer.reshape(-1, *answer.shape[-2:]), strict=True
    ):
        known = np.isfinite(true)
        # Unknown pixels lie in the windows of known ones; there they count as predicted rightly.
        filled = np.where(known, true, predicted).astype(np.float64)
        _, each = structural_similarity(  # type: ignore[no-untyped-call]
            filled,
            predicted.astype(np.float64),
            data_range=span,
            gaussian_weights=True,
            sigma=_SSIM_SIGMA,
            use_sample_covariance=False,
            full=True,
        )
        total += float(each[known].sum())
        count += int(np.count_nonzero(known))
    return total / count


def _coverage(answer: NDArray[Any], deviation: NDArray[Any], truth: NDArray[Any]) -> float:
    known = np.isfinite(truth)
    if not known.any():
        return float("nan")
    return float(np.mean(np.abs(answer[known] - truth[known]) <= deviation[known]))


def _mean(values: NDArray[np.float64]) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else None
