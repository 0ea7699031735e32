"""Pictures of a label-free prediction: input, target, prediction, error and uncertainty side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import AxesError
from cytoray_analysis.images.axes import how_to_choose
from cytoray_analysis.pictures import figure_png, new_figure, set_title
from cytoray_analysis.tasks.image_scores import true_range


@dataclass(frozen=True, eq=False)
class StainEntry:
    """One row of a sheet.

    Attributes
    ----------
    title
        Stands above the row.
    image
        Input, (C, Y, X), or (Z, Y, X) for a stack; the middle channel is shown.
    target, prediction
        One stain, (Y, X), in its own units; NaN in the target where unknown.
    deviation
        Standard deviation of the prediction's error, (Y, X), where it is known.
    """

    title: str
    image: NDArray[Any]
    target: NDArray[Any]
    prediction: NDArray[Any]
    deviation: NDArray[Any] | None = None


def stain_sheet(entries: Sequence[StainEntry], *, title: str = "") -> bytes:
    """Draw input | target | prediction | error | uncertainty, one row per entry.

    Target and prediction share one grey scale, that of the target; error (prediction minus target; red too much, blue
    too little) and uncertainty are in fractions of the target's range, from the 0.1 to the 99.9 percentile.

    Parameters
    ----------
    entries
        What to show, at least one.
    title
        Stands above all.

    Returns
    -------
    bytes
        A PNG file.

    Raises
    ------
    AxesError
        An entry is not of planes of one size.
    """
    columns = 5 if any(entry.deviation is not None for entry in entries) else 4
    figure = new_figure(width=3.0 * columns, height=0.5 + 3.1 * len(entries))
    figure.suptitle(title)
    for row, entry in enumerate(entries):
        _check(entry)
        for column, (name, pixels, colours) in enumerate(_panels(entry)):
            axes = figure.add_subplot(len(entries), columns, row * columns + column + 1)
            shown = axes.imshow(pixels, interpolation="none", **colours)
            set_title(axes, f"{entry.title}: {name}" if column == 0 else name, columns=columns)
            axes.set_axis_off()
            if column >= 3:
                figure.colorbar(shown, ax=axes, shrink=0.7)
    return figure_png(figure)


def _check(entry: StainEntry) -> None:
    plane = entry.target.shape
    others = [entry.prediction.shape, entry.image.shape[1:]]
    if entry.deviation is not None:
        others.append(entry.deviation.shape)
    if len(plane) != 2 or any(other != plane for other in others):
        raise AxesError(
            f"{entry.title}: expected an input (C, Y, X), a target and a prediction (Y, X) of one size, "
            f"got {entry.image.shape}, {plane} and {entry.prediction.shape}",
            hint=f"choose one plane of a volume first: {how_to_choose('Z')}",
        )


def _panels(entry: StainEntry) -> list[tuple[str, NDArray[np.float32], dict[str, Any]]]:
    """Return name, pixels and colour scale of each panel of a row."""
    middle = entry.image[len(entry.image) // 2].astype(np.float32)
    target, prediction = entry.target.astype(np.float32), entry.prediction.astype(np.float32)
    dark, bright = _limits(target)
    span = true_range(target) or 1.0
    stain = {"cmap": "gray", "vmin": dark, "vmax": bright}
    low, high = _limits(middle)
    panels: list[tuple[str, NDArray[np.float32], dict[str, Any]]] = [
        ("input", middle, {"cmap": "gray", "vmin": low, "vmax": high}),
        ("target", target, stain),
        ("prediction", prediction, stain),
        ("error", (prediction - target) / span, {"cmap": "RdBu_r", "vmin": -0.5, "vmax": 0.5}),
    ]
    if entry.deviation is not None:
        deviation = entry.deviation.astype(np.float32) / span
        panels.append(("uncertainty", deviation, {"cmap": "magma", "vmin": 0.0, "vmax": 0.5}))
    return panels


def _limits(pixels: NDArray[np.float32]) -> tuple[float, float]:
    known = pixels[np.isfinite(pixels)]
    if known.size == 0:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(known, (0.5, 99.5)))
    return (low, high) if high > low else (float(known.min()), float(known.max()))
