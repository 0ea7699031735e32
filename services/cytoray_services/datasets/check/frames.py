"""Checks of single frames of a movie, its masks and outlines: damaged, or different from the other frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import InputError
from cytoray_analysis.images import Image, read_image, read_labels
from cytoray_analysis.images.names import is_image_name
from cytoray_analysis.tracking.ctc import movie_files
from cytoray_analysis.tracking.frames import frame_of
from cytoray_services.datasets.check.files import size_of
from cytoray_services.datasets.check.findings import Finding, name_in
from cytoray_services.datasets.check.looks import Look, look_of_image, look_of_mask
from cytoray_services.datasets.check.unlike import UNLIKE_REMEDY, unlike_files
from cytoray_services.datasets.dataset import Dataset

_SAMPLE = 2**16  # pixels for the comparison of two frames

_SPECKS = {"smallest piece", "stray pixels", "holes", "pieces"}


def find_unlike_frames(movie: Image, folder: Path, dataset: Dataset) -> Iterator[Finding]:
    """Find frames of a valid movie that differ from the others."""
    paths = movie_files(folder)
    if movie.size("T") != len(paths):  # one of them was selected
        return
    in_file = dataset.selection.without("frame")
    looks, samples = {}, []
    for index, path in enumerate(paths):
        pixels = frame_of(movie, index)
        looks[path] = look_of_image(read_image(path, selection=in_file), pixels)
        samples.append(_sample(pixels))
    yield from _unlike(_with_continuity(looks, samples), dataset)


def find_unlike_masks(masks: Image, folder: Path, dataset: Dataset) -> Iterator[Finding]:
    """Find masks of a valid lineage that differ from the others."""
    looks, samples = {}, []
    for index, path in enumerate(movie_files(folder, masks=True)):
        labels = frame_of(masks, index)
        looks[path] = _look_of_mask(path, labels)
        samples.append(_sample(labels > 0))
    yield from _unlike(_with_continuity(looks, samples), dataset)


def examine_outlines(folder: Path, shape: tuple[int, ...], dataset: Dataset) -> Iterator[Finding]:
    """Find outlines (``SEG``) that are unreadable, have another size than the frames, or differ from the others.

    Parameters
    ----------
    folder
        ``NN_GT/SEG`` or ``NN_ST/SEG``; it may be missing.
    shape
        Spatial shape of the frames; outlines of volumes may be single planes.
    """
    if not folder.is_dir():
        return
    looks, samples = {}, []
    for path in sorted(folder.iterdir()):
        if not is_image_name(path):
            continue
        name = name_in(dataset, path)
        try:
            labels = read_labels(path)
        except InputError as error:
            yield Finding("error", name, error.message, error.hint or "", "invalid-mask")
            continue
        if labels.shape not in (shape, shape[-2:]):
            problem = f"its size is {size_of(labels.shape)}, that of the frames {size_of(shape)}"
            yield Finding("error", name, problem, "Crop or resample both together.", "size-mismatch")
            continue
        looks[path] = _look_of_mask(path, labels)
        samples.append(_sample(labels > 0))
    yield from _unlike(_with_continuity(looks, samples), dataset)


def _look_of_mask(path: Path, labels: NDArray[Any]) -> Look:
    look = look_of_mask(read_image(path, labels=True), labels, None)
    # In most movies, cells that enter, leave or overlap leave specks in some frame.
    return Look(look.traits, {name: value for name, value in look.measures.items() if name not in _SPECKS})


def _unlike(looks: Mapping[Path, Look], dataset: Dataset) -> Iterator[Finding]:
    for path, problem in unlike_files(looks).items():
        yield Finding("note", name_in(dataset, path), problem, UNLIKE_REMEDY, "unlike-others")


def _sample(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Return pixels of a frame, at the same positions for each, with mean 0 and norm 1 (or 0)."""
    flat = pixels.reshape(-1)[:: max(1, pixels.size // _SAMPLE)].astype(np.float32)
    flat -= flat.mean()
    norm = float(np.linalg.norm(flat))
    return flat / norm if norm > 0 else flat


def _with_continuity(looks: Mapping[Path, Look], samples: Sequence[NDArray[np.float32]]) -> dict[Path, Look]:
    """Add the correlation of a frame with its more similar neighbour frame."""
    alike = [float(one @ other) if one.shape == other.shape else 0.0 for one, other in pairwise(samples)]
    found = {}
    for index, (path, look) in enumerate(looks.items()):
        beside = alike[max(0, index - 1) : index + 1]
        measures = {**look.measures, "continuity": max(beside)} if beside else look.measures
        found[path] = Look(look.traits, measures)
    return found
