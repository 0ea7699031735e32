"""Synthetic fields of cells of a few kinds that differ in shape and texture, not in brightness or size.

=============== ==================================================
class           appearance
=============== ==================================================
``round``       a smooth disc
``spindle``     smooth, two to three times as long as wide
``ring``        a bright rim around a dark middle
``granular``    a disc of bright grains
=============== ==================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import RequestError
from cytoray_analysis.images import image_from_array, write_image
from cytoray_services.datasets.dataset import Dataset
from cytoray_services.datasets.synthetic.folder import Row, make_dataset, sides, split_of

CLASSES = ("round", "spindle", "ring", "granular")
CROP = 48
"""Side of the images of single cells, in pixels."""
_PITCH = 40  # at most one cell in each square of this side
_FILLED = 0.6
_SMALLEST = 2 * _PITCH
_COLUMNS = ("path", "label", "split", "xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Cell:
    """One cell of a field.

    Parameters
    ----------
    label
        Its class.
    starts, stops
        First pixel and one past the last along Y and X.
    """

    label: str
    starts: tuple[int, int]
    stops: tuple[int, int]


def make_classification(
    folder: str | Path,
    *,
    images: int = 48,
    size: int | tuple[int, int] = 256,
    seed: int = 0,
    classes: int = 4,
    imbalance: float = 1.0,
    layout: Literal["boxes", "folders"] = "boxes",
    overwrite: bool = False,
) -> Dataset:
    """Write a data set of synthetic cells of known classes.

    Parameters
    ----------
    folder
        Folder to write. Layout ``boxes`` gives whole fields in ``images/`` and ``manifest.csv`` with a row per cell
        (``path,label,split,xmin,ymin,xmax,ymax``, in pixels, the max one past the last); layout ``folders`` gives the
        same cells cut out, 48 × 48 pixels each, as ``SPLIT/CLASS/*.tif``. The cells of every fourth field are ``val``.
    images
        Number of fields, at least 1; one of 256 × 256 has 22 cells.
    size
        Side of the square fields, or ``(Y, X)``, at least 80.
    classes
        How many of the kinds of this module, 2 to 4.
    imbalance
        How many times the largest class outnumbers the smallest, at least 1; the others lie in between.
    layout
        ``boxes`` or ``folders``.
    seed, overwrite
        See :func:`cytoray_services.datasets.synthetic.folder.make_dataset`.

    Raises
    ------
    RequestError
        An argument is out of range.
    DatasetError
        See :func:`cytoray_services.datasets.synthetic.folder.make_dataset`.
    """
    shape = sides(size)
    if images < 1 or min(shape) < _SMALLEST or seed < 0 or not 2 <= classes <= len(CLASSES) or not imbalance >= 1:
        raise RequestError(
            f"expected at least 1 image of at least {_SMALLEST} × {_SMALLEST}, a seed of at least 0, 2 to "
            f"{len(CLASSES)} classes and an imbalance of at least 1, got {images} of {shape[0]} × {shape[1]}, "
            f"seed {seed}, {classes} classes, imbalance {imbalance:g}"
        )
    if layout not in ("boxes", "folders"):
        raise RequestError(f"expected the layout boxes or folders, got {layout!r}", field="layout")
    splits = [split_of(index, images) for index in range(images)]
    dealt = list(_deal(splits, _count_cells(shape), CLASSES[:classes], imbalance, seed))

    def draw(root: Path, index: int, rng: np.random.Generator, split: str) -> Iterator[Row]:
        pixels, cells = draw_cells(rng, shape, dealt[index])
        if layout == "folders":
            _write_crops(root / split, f"{index:04d}", pixels, cells)
            return
        name = f"images/{index:04d}.tif"
        write_image(root / name, image_from_array(pixels, "YX"))
        yield from ((name, cell.label, split, *cell.starts[::-1], *cell.stops[::-1]) for cell in cells)

    columns = _COLUMNS if layout == "boxes" else ()
    return make_dataset(folder, draw, images=images, seed=seed, overwrite=overwrite, columns=columns)


def draw_cells(
    rng: np.random.Generator, shape: tuple[int, int], labels: Sequence[str]
) -> tuple[NDArray[np.uint8], list[Cell]]:
    """Draw one field of cells.

    Parameters
    ----------
    rng
        Random generator.
    shape
        ``(Y, X)``.
    labels
        The class of each cell; no more than there are squares of 40 × 40 pixels.

    Returns
    -------
    image : numpy.ndarray
        uint8 (Y, X).
    cells : list of Cell
        In the order of `labels`; none touches another.

    Raises
    ------
    RequestError
        There are more cells than squares.
    """
    columns = shape[1] // _PITCH
    room = shape[0] // _PITCH * columns
    if len(labels) > room:
        raise RequestError(f"expected for a field of {shape[0]} × {shape[1]} at most {room} cells, got {len(labels)}")
    squares = rng.permutation(room)[: len(labels)]
    signal = np.zeros(shape, np.float32)
    cells = []
    for label, square in zip(labels, squares.tolist(), strict=True):
        corner = (square // columns * _PITCH, square % columns * _PITCH)
        part = signal[corner[0] : corner[0] + _PITCH, corner[1] : corner[1] + _PITCH]
        part += _draw_cell(rng, label)
        rows, across = (np.flatnonzero(part.any(axis=axis)) for axis in (1, 0))
        starts = (corner[0] + int(rows[0]), corner[1] + int(across[0]))
        stops = (corner[0] + int(rows[-1]) + 1, corner[1] + int(across[-1]) + 1)
        cells.append(Cell(label, starts, stops))
    return _photograph(rng, signal), cells


def _deal(
    splits: Sequence[str], each: int, classes: Sequence[str], imbalance: float, seed: int
) -> Iterator[tuple[str, ...]]:
    """Assign classes to every field, so that each split has the requested shares as exactly as possible."""
    shares = imbalance ** -np.linspace(0.0, 1.0, len(classes))
    decks: dict[str, list[str]] = {}
    for number, split in enumerate(sorted(set(splits))):
        count = splits.count(split) * each
        bounds = np.round(np.cumsum(shares) / shares.sum() * count).astype(int)
        sizes = np.diff(bounds, prepend=0)
        for empty in np.flatnonzero(sizes == 0)[: max(count - 1, 0)]:  # a rare class has at least one cell
            sizes[np.argmax(sizes)] -= 1
            sizes[empty] = 1
        order = np.random.default_rng([seed, number, 1]).permutation(count)
        decks[split] = np.repeat(np.array(classes), sizes)[order].tolist()
    for split in splits:
        hand, decks[split] = decks[split][:each], decks[split][each:]
        yield tuple(hand)


def _count_cells(shape: tuple[int, int]) -> int:
    return max(1, round(_FILLED * (shape[0] // _PITCH) * (shape[1] // _PITCH)))


def _draw_cell(rng: np.random.Generator, label: str) -> NDArray[np.float32]:
    """Draw one cell into a square; 0 outside of it."""
    from scipy.ndimage import gaussian_filter

    elongation = rng.uniform(2.0, 3.0) if label == "spindle" else rng.uniform(1.0, 1.3)
    radius, angle = rng.uniform(7.0, 10.0), rng.uniform(0.0, math.pi)
    middle = _PITCH / 2 - 0.5 + rng.uniform(-1.5, 1.5, 2)
    dy = np.arange(_PITCH)[:, None] - middle[0]
    dx = np.arange(_PITCH)[None, :] - middle[1]
    along = (dx * math.cos(angle) + dy * math.sin(angle)) / math.sqrt(elongation)
    across = (dy * math.cos(angle) - dx * math.sin(angle)) * math.sqrt(elongation)
    theta = np.arctan2(across, along)
    contour = 1.0 + sum(
        rng.normal(0.0, 0.03) * np.cos(order * theta + rng.uniform(0.0, 2 * math.pi)) for order in (2, 3, 4)
    )
    depth = np.hypot(along, across) / (radius * contour)  # 0 in the middle, 1 on the contour
    grains = gaussian_filter(rng.standard_normal((_PITCH, _PITCH)), 1.0)
    texture = 1.0 + 0.6 * grains
    if label == "granular":
        texture = np.clip(0.8 + 2.0 * grains / 0.28, 0.15, 2.6)
    elif label == "ring":
        texture *= 0.35 + 1.1 * np.exp(-(((depth - 0.78) / 0.2) ** 2))
    else:
        texture *= 1.0 - 0.35 * np.clip(depth, 0.0, 1.0) ** 2
    inside = depth <= 1.0
    texture = np.clip(texture, 0.05, None) / texture[inside].mean()
    return np.where(inside, rng.uniform(0.45, 0.9) * texture, 0.0).astype(np.float32)


def _photograph(rng: np.random.Generator, signal: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Simulate the microscope image of a field: blur, uneven light, photon and read noise."""
    from scipy.ndimage import gaussian_filter

    seen = gaussian_filter(signal, rng.uniform(0.7, 1.1)) + rng.uniform(0.06, 0.15)
    y, x = (np.linspace(-1.0, 1.0, length) for length in signal.shape)
    angle = rng.uniform(0.0, 2 * math.pi)
    seen *= 1.0 + 0.15 * (x[None, :] * math.cos(angle) + y[:, None] * math.sin(angle))
    photons = rng.uniform(80.0, 250.0)
    noisy = rng.poisson(seen * photons) / photons + rng.normal(0.0, 0.01, signal.shape)
    stored: NDArray[np.uint8] = np.round(np.clip(noisy * rng.uniform(0.45, 0.6), 0.0, 1.0) * 255).astype(np.uint8)
    return stored


def _write_crops(folder: Path, stem: str, pixels: NDArray[np.uint8], cells: Sequence[Cell]) -> None:
    padded = np.pad(pixels, CROP // 2, mode="reflect")
    for number, cell in enumerate(cells):
        y, x = ((start + stop) // 2 for start, stop in zip(cell.starts, cell.stops, strict=True))
        crop = padded[y : y + CROP, x : x + CROP]
        write_image(folder / cell.label / f"{stem}_{number:02d}.tif", image_from_array(crop, "YX"))
