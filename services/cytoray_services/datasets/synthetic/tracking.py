"""Synthetic movies of dividing cells with exact lineages, in the layout of the Cell Tracking Challenge."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from cytoray_analysis.errors import RequestError
from cytoray_analysis.files import write_whole
from cytoray_analysis.images import image_from_array, write_image, write_labels
from cytoray_services.datasets.dataset import Dataset
from cytoray_services.datasets.synthetic.cells import Cell, World, draw_movie, draw_world
from cytoray_services.datasets.synthetic.folder import Row, make_dataset, sides


def make_tracking(
    folder: str | Path,
    *,
    movies: int = 4,
    frames: int = 24,
    size: int | tuple[int, int] = 256,
    seed: int = 0,
    overwrite: bool = False,
) -> Dataset:
    """Write movies of dividing cells.

    Parameters
    ----------
    folder
        Folder to write; receives for each movie ``NN/tTTT.tif``, ``NN_GT/TRA`` (markers: outlines, eroded outlines or
        small disks, by movie, and ``man_track.txt``), and ``NN_ST/SEG`` (outlines).
    movies
        Number of movies, 1 to 99.
    frames
        Frames of each, 2 to 1000.
    size
        Side of the square frames, or ``(Y, X)``, at least 64.
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
    if not 1 <= movies <= 99 or not 2 <= frames <= 1000 or min(shape) < 64 or seed < 0:
        raise RequestError(
            f"expected 1 to 99 movies of 2 to 1000 frames of at least 64 × 64 and a seed of at least 0, "
            f"got {movies} of {frames} of {shape[0]} × {shape[1]}, seed {seed}"
        )

    def draw(root: Path, index: int, rng: np.random.Generator, split: str) -> Iterable[Row]:
        _write_movie(root, f"{index + 1:02d}", rng, shape, frames)
        return ()  # movies have no manifest; their split is drawn

    return make_dataset(folder, draw, images=movies, seed=seed, overwrite=overwrite)


def _write_movie(root: Path, name: str, rng: np.random.Generator, shape: tuple[int, int], frames: int) -> None:
    world = draw_world(rng)
    tracks: dict[int, list[int]] = {}
    numbers: dict[int, int] = {}
    for frame, (image, labels, cells) in enumerate(draw_movie(rng, shape, frames, world)):
        for cell in cells:
            numbers.setdefault(cell.track, len(numbers) + 1)
            mother = numbers.get(cell.parent, 0)
            # A mother outside the field in her last frame is not a mother in the truth.
            known = mother if mother and tracks[mother][2] == cell.begin - 1 and cell.begin == frame else 0
            track = tracks.setdefault(numbers[cell.track], [numbers[cell.track], frame, frame, known])
            track[2] = frame
        renumber = np.zeros(max(numbers, default=0) + 1, np.int32)
        renumber[list(numbers)] = list(numbers.values())
        labels = renumber[labels]
        stored = np.round(image * (255 if world.contrast == "phase" else 4095))
        kind = np.uint8 if world.contrast == "phase" else np.uint16
        write_image(root / name / f"t{frame:03d}.tif", image_from_array(stored.astype(kind), "YX"))
        write_labels(root / f"{name}_GT" / "TRA" / f"man_track{frame:03d}.tif", _markers(labels, cells, numbers, world))
        write_labels(root / f"{name}_ST" / "SEG" / f"man_seg{frame:03d}.tif", labels)
    lines = "".join(f"{a} {b} {c} {d}\n" for a, b, c, d in sorted(tracks.values()))
    write_whole(root / f"{name}_GT" / "TRA" / "man_track.txt", lines)


def _markers(labels: np.ndarray, cells: list[Cell], numbers: dict[int, int], world: World) -> np.ndarray:
    """Return the markers of the cells in the tracking truth: outlines, eroded outlines, or small disks."""
    if world.markers == "outlines":
        return labels
    from scipy.ndimage import distance_transform_edt

    same = np.ones(labels.shape, bool)
    for axis in (0, 1):
        differs = np.diff(labels, axis=axis) != 0
        same &= ~np.pad(differs, [(0, 1) if a == axis else (0, 0) for a in (0, 1)])
        same &= ~np.pad(differs, [(1, 0) if a == axis else (0, 0) for a in (0, 1)])
    depth = distance_transform_edt(np.pad(same & (labels > 0), 1))[1:-1, 1:-1]
    radius = 0.35 * world.radius
    markers = np.zeros_like(labels)
    for cell in cells:
        rows, columns = np.nonzero(labels == numbers[cell.track])
        inner = depth[rows, columns]
        deepest = int(np.argmax(inner))
        if world.markers == "eroded":
            kept = inner >= min(0.25 * world.radius, float(inner[deepest]))
        else:
            kept = np.hypot(rows - rows[deepest], columns - columns[deepest]) <= radius
        markers[rows[kept], columns[kept]] = numbers[cell.track]
    return markers
