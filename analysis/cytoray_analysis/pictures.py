"""Pictures for people: outlines of objects on an image, truth next to prediction, training curves.

Arrays come in as the science has them, ``(C, Y, X)`` samples and ``(Y, X)`` labels; everything that leaves
is ``(H, W, 3)`` uint8 RGB or the bytes of a PNG file. Figures are drawn with matplotlib's object interface,
which keeps no global state and is safe in threads and on machines without a display.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import AxesError
from cytoray_analysis.images.axes import how_to_choose
from cytoray_analysis.tasks.overlap import known_part, overlap

RGB = NDArray[np.uint8]
Colour = tuple[int, int, int]

_TITLE_POINTS = 9.0

# Bright on dark and on stained tissue, and of different lightness, so that no colour vision confuses them.
MATCHED: Colour = (0, 230, 160)
MISSED: Colour = (255, 190, 0)
SPURIOUS: Colour = (255, 60, 60)

_PIXELS_FOR_PERCENTILES = 2**18
# What a channel looks like when there are more than one and they are not red, green and blue.
_CHANNEL_COLOURS = np.array(
    [[1, 1, 1], [0, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=np.float32
)


def display_rgb(sample: NDArray[Any], *, low: float = 0.5, high: float = 99.8) -> RGB:
    """Stretch the contrast of a sample for the eye.

    Parameters
    ----------
    sample
        ``(Y, X)``, or ``(C, Y, X)`` in any real dtype. One channel becomes grey and three become red, green and blue
        with one common stretch; otherwise the channels are added, each in its own colour.
    low, high
        Percentiles that become black and white, of each channel (of all three together for RGB).

    Returns
    -------
    RGB
        ``(Y, X, 3)`` uint8.

    Raises
    ------
    AxesError
        If the sample has neither two nor three axes.
    """
    channels = sample[np.newaxis] if sample.ndim == 2 else sample
    if channels.ndim != 3:
        raise AxesError(
            f"expected a picture (Y, X) or (C, Y, X), got an array with {sample.ndim} axes",
            hint=f"choose one plane first, such as image.select('CYX'), or {how_to_choose('Z')}",
        )
    if len(channels) == 3:
        colours: RGB = np.moveaxis(_stretch(channels, low, high), 0, -1)
        return colours
    if len(channels) == 1:
        return np.repeat(_stretch(channels, low, high)[0, :, :, np.newaxis], 3, axis=2)
    mixed = np.zeros((*channels.shape[1:], 3), dtype=np.float32)
    for number, channel in enumerate(channels):
        colour = _CHANNEL_COLOURS[1 + number % (len(_CHANNEL_COLOURS) - 1)]
        mixed += _stretch(channel, low, high)[..., np.newaxis] * colour
    return np.minimum(mixed, 255).astype(np.uint8)


def _stretch(values: NDArray[Any], low: float, high: float) -> RGB:
    pixels = values.shape[-2] * values.shape[-1]
    step = max(1, int(np.sqrt(pixels / _PIXELS_FOR_PERCENTILES)))
    seen = values[..., ::step, ::step].astype(np.float32)
    seen = seen[np.isfinite(seen)]
    black, white = np.percentile(seen, (low, high)) if seen.size else (0.0, 1.0)
    scale = 255 / (white - black) if white > black else 0.0
    clipped = np.clip(values.astype(np.float32), np.float32(black), np.float32(white))
    stretched: RGB = np.rint(np.nan_to_num((clipped - np.float32(black)) * np.float32(scale))).astype(np.uint8)
    return stretched


def outlines(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark the pixels of every object that touch another object or the background through an edge.

    Parameters
    ----------
    labels
        ``(Y, X)`` integers; 0 and below is background.

    Returns
    -------
    ndarray
        ``(Y, X)`` bool. The picture's border is no neighbour, so objects cut by it stay open there.
    """
    from skimage.segmentation import find_boundaries

    edge: NDArray[np.bool_] = find_boundaries(  # type: ignore[no-untyped-call]
        np.maximum(labels, 0), connectivity=1, mode="inner"
    )
    return edge


def overlay(picture: RGB, labels: NDArray[Any], *, colour: Colour | None = None) -> RGB:
    """Draw the outlines of labelled objects on a picture.

    Parameters
    ----------
    picture
        ``(Y, X, 3)`` uint8, such as :func:`display_rgb` gives.
    labels
        ``(Y, X)`` integers.
    colour
        The outlines' colour; a separate colour per object when None.

    Returns
    -------
    RGB
        A new ``(Y, X, 3)`` uint8 array.

    Raises
    ------
    AxesError
        If picture and labels have different sizes.
    """
    if picture.shape != (*labels.shape, 3):
        raise AxesError(
            f"the picture has shape {picture.shape}, but the labels have {labels.shape}",
            hint="picture and labels must be (Y, X, 3) and (Y, X) of the same size",
        )
    drawn = picture.copy()
    edge = outlines(labels)
    drawn[edge] = _object_colours(labels[edge]) if colour is None else colour
    return drawn


def _object_colours(numbers: NDArray[Any]) -> RGB:
    """Return a bright colour for each object number: hues a golden angle apart, so that neighbours differ."""
    hue = (numbers.astype(np.float64) * 0.618033988749895) % 1.0
    # The three shifted cosine waves of a hue circle, kept bright enough for a dark background.
    shifts = np.array([0.0, 1 / 3, 2 / 3])
    waves = 0.5 + 0.5 * np.cos(2 * np.pi * (hue[:, np.newaxis] - shifts))
    colours: RGB = (70 + 185 * waves).astype(np.uint8)
    return colours


def comparison(
    picture: RGB, truth: NDArray[Any], prediction: NDArray[Any], *, threshold: float = 0.5, gap: int = 4
) -> RGB:
    """Put the picture, the truth on it, and the prediction on it side by side.

    In the middle, objects that were found are green and missed ones orange; on the right, objects that match
    one of the truth are green and the others red. Two objects match when their intersection over union is at
    least `threshold`.

    Parameters
    ----------
    picture
        ``(Y, X, 3)`` uint8.
    truth, prediction
        ``(Y, X)`` integers. What lies where the truth is unknown, below 0, is not drawn.
    threshold
        Intersection over union in [0.5, 1].
    gap
        Width of the white line between the panels, in pixels.

    Returns
    -------
    RGB
        ``(Y, 3 X + 2 gap, 3)`` uint8.
    """
    prediction, truth, _ = known_part(prediction, truth)
    found, right = matched_objects(truth, prediction, threshold)
    panels = [picture]
    for labels, matched, other in ((truth, found, MISSED), (prediction, right, SPURIOUS)):
        is_matched = np.isin(labels, matched)
        drawn = overlay(picture, np.where(is_matched, labels, 0), colour=MATCHED)
        panels.append(overlay(drawn, np.where(is_matched, 0, labels), colour=other))
    line = np.full((picture.shape[0], gap, 3), 255, dtype=np.uint8)
    return np.concatenate([panels[0], line, panels[1], line, panels[2]], axis=1)


def matched_objects(
    truth: NDArray[Any], prediction: NDArray[Any], threshold: float = 0.5
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the labels of the truth that were found, and the labels of the prediction that match one.

    Parameters
    ----------
    truth, prediction
        Integer arrays of one shape; 0 and below is background.
    threshold
        Least intersection over union, as in the scores.

    Returns
    -------
    tuple of ndarray
        Matching labels, pair by pair.
    """
    truth_ids, numbered_truth = _numbered(truth)
    ids, numbered_prediction = _numbered(prediction)
    both = overlap(numbered_prediction, numbered_truth)
    pairs = both.pairs[both.matches(threshold)] - 1
    return truth_ids[pairs[:, 0]], ids[pairs[:, 1]]


def _numbered(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the ids of the objects, and the labels with these objects numbered from 1 on."""
    ids = np.unique(labels[labels > 0])
    return ids, np.where(labels > 0, np.searchsorted(ids, labels) + 1, 0)


def png_bytes(picture: RGB) -> bytes:
    """Encode a picture as PNG.

    Parameters
    ----------
    picture
        ``(H, W, 3)`` uint8.

    Returns
    -------
    bytes
        The file. A low compression level: four times faster than the usual one, and little larger.
    """
    import imagecodecs

    return bytes(imagecodecs.png_encode(np.ascontiguousarray(picture), level=1))


@dataclass(frozen=True)
class SheetEntry:
    """One image of a sheet: a title and a picture, such as :func:`comparison` gives."""

    title: str
    picture: RGB


def sheet(entries: Sequence[SheetEntry], *, title: str = "", columns: int = 1) -> bytes:
    """Arrange titled pictures in rows, such as the worst and the best of a validation.

    Parameters
    ----------
    entries
        What to show, in reading order; pictures may differ in size.
    title
        Stands above all.
    columns
        At most so many pictures in a row.

    Returns
    -------
    bytes
        A PNG file.
    """
    columns = max(1, min(columns, len(entries)))
    rows = max(1, -(-len(entries) // columns))
    figure = new_figure(width=9.0 * columns, height=0.6 + 3.2 * rows)
    figure.suptitle(title)
    for number, entry in enumerate(entries, start=1):
        axes = figure.add_subplot(rows, columns, number)
        axes.imshow(entry.picture, interpolation="none")
        set_title(axes, entry.title, columns=columns)
        axes.set_axis_off()
    return figure_png(figure)


def training_curves(history: Sequence[Mapping[str, float]], *, x: str = "epoch") -> bytes:
    """Draw the curves of a training run: losses in one panel, scores in the second, the learning rate in the third.

    Parameters
    ----------
    history
        One mapping per epoch. Keys with ``loss`` in their last part are losses; keys whose last part is
        ``lr`` or ``learning_rate`` are rates; all other numbers between 0 and 1 are scores. An epoch may lack
        a key.
    x
        The key that counts epochs; the position in `history` where it is missing.

    Returns
    -------
    bytes
        A PNG file.
    """
    panels: dict[str, list[str]] = {"loss": [], "score": [], "learning rate": []}
    for key in dict.fromkeys(key for epoch in history for key in epoch if key != x):
        panel = _panel(key, [epoch[key] for epoch in history if key in epoch])
        if panel is not None:
            panels[panel].append(key)
    shown = {name: keys for name, keys in panels.items() if keys}
    figure = new_figure(width=5.0 * max(1, len(shown)), height=3.6)
    for number, (name, keys) in enumerate(shown.items(), start=1):
        axes = figure.add_subplot(1, len(shown), number)
        for key in keys:
            points = [(epoch.get(x, place), epoch[key]) for place, epoch in enumerate(history) if key in epoch]
            axes.plot(*zip(*points, strict=True), label=key, marker="." if len(points) < 30 else None)
        axes.set_xlabel(x)
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
        # Beside the curves, not over them.
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        if name == "loss" and all(epoch[key] > 0 for epoch in history for key in keys if key in epoch):
            axes.set_yscale("log")
    return figure_png(figure)


def _panel(key: str, values: Sequence[float]) -> str | None:
    last = key.replace("/", ".").rpartition(".")[2]
    if last in ("lr", "learning_rate"):
        return "learning rate"
    if "loss" in last:
        return "loss"
    finite = [value for value in values if np.isfinite(value)]
    return "score" if finite and min(finite) >= 0 and max(finite) <= 1 else None


def new_figure(width: float, height: float) -> Any:
    """Return an empty Matplotlib figure, in inches, that belongs to no window."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=110)


def set_title(axes: Any, text: str, *, columns: int = 1) -> None:
    """Write a title above axes, in as many lines as their width needs.

    Parameters
    ----------
    columns
        Number of axes of this kind side by side in the figure.
    """
    # The axes take about 0.85 of the figure, and a letter is about 0.6 times as wide as high.
    letters = int(0.85 * axes.figure.get_figwidth() / columns * 72 / (0.6 * _TITLE_POINTS))
    axes.set_title(textwrap.fill(text, width=letters), fontsize=_TITLE_POINTS)


def figure_png(figure: Any) -> bytes:
    """Return a figure as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
