"""Pictures of a classification: confusion matrix, misclassified cells, and attention maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.pictures import RGB, display_rgb, figure_png, new_figure


def confusion_picture(matrix: NDArray[np.integer], names: Sequence[str]) -> bytes:
    """Draw a confusion matrix.

    Parameters
    ----------
    matrix
        (K, K) counts, row true class, column predicted class, as
        :func:`~cytoray_analysis.tasks.class_scores.count_confusions` returns it.
    names
        The K classes.

    Returns
    -------
    bytes
        A PNG file. Fields show counts; their colour is the share of the row, so that rare classes are also readable.
    """
    side = 2.5 + 0.55 * len(names)
    figure = new_figure(width=side + 0.8, height=side)
    axes = figure.add_subplot()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0)
    for row, column in np.argwhere(matrix > 0):
        colour = "white" if share[row, column] > 0.55 else "black"
        axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), [f"{name} ({count})" for name, count in zip(names, matrix.sum(1), strict=True)])
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class (cells)")
    figure.colorbar(image, label="share of the true class", shrink=0.7)
    return figure_png(figure)


def mistaken_cells(
    windows: NDArray[Any],
    probabilities: NDArray[np.floating],
    truth: NDArray[np.integer],
    names: Sequence[str],
    *,
    at_most: int = 48,
    columns: int = 8,
) -> bytes:
    """Draw the misclassified cells, those with the highest confidence first.

    Parameters
    ----------
    windows
        (N, C, spatial…); of volumes the middle plane is shown.
    probabilities
        (N, K).
    truth
        (N,) class indices, −1 unknown.
    names
        The K classes.
    at_most, columns
        Maximum number of cells, and cells per row.

    Returns
    -------
    bytes
        A PNG file; above each cell its true class, the predicted one and its probability.
    """
    predicted, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero((predicted != truth) & (truth >= 0))
    chosen = wrong[np.argsort(-sure[wrong], kind="stable")][:at_most]
    rows = max(1, -(-len(chosen) // columns))
    figure = new_figure(width=1.45 * columns, height=0.5 + 1.75 * rows)
    known = int((truth >= 0).sum())
    figure.suptitle(f"{len(wrong)} of {known} cells misclassified (true, predicted)", fontsize=10)
    for number, index in enumerate(chosen, start=1):
        axes = figure.add_subplot(rows, columns, number)
        axes.imshow(display_rgb(middle_plane(windows[index])), interpolation="none")
        axes.set_title(f"{names[truth[index]]}\n{names[predicted[index]]} {sure[index]:.2f}", fontsize=6)
        axes.set_axis_off()
    return figure_png(figure)


def attention_overlay(window: NDArray[Any], attention: NDArray[np.float32]) -> RGB:
    """Overlay a heat map on a window.

    Parameters
    ----------
    window
        (C, spatial…); of a volume the middle plane is shown.
    attention
        (spatial…) from 0 to 1, as :func:`~cytoray_analysis.attention_map.attention_map` returns it.

    Returns
    -------
    RGB
        (Y, X, 3) uint8: grey for no contribution, from blue to red for increasing contribution.
    """
    from matplotlib import colormaps

    heat = attention if attention.ndim == 2 else attention[attention.shape[0] // 2]
    grey = display_rgb(middle_plane(window)).mean(axis=2, keepdims=True)
    strength = 0.6 * heat[..., np.newaxis]
    colour = colormaps["turbo"](heat)[..., :3] * 255.0
    picture: RGB = (grey * (1 - strength) + colour * strength).astype(np.uint8)
    return picture


def middle_plane(window: NDArray[Any]) -> NDArray[Any]:
    """Return (C, Y, X) of a window (C, Y, X) or (C, Z, Y, X)."""
    return window if window.ndim == 3 else window[:, window.shape[1] // 2]
