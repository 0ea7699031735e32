"""The common part of all synthetic data sets: a new folder, its images and its manifest."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from cytoray_analysis.errors import DatasetError
from cytoray_analysis.files import write_whole
from cytoray_analysis.kinds import TruthKind
from cytoray_services.datasets.dataset import Dataset
from cytoray_services.datasets.manifest import MANIFEST, open_dataset
from cytoray_services.statistics import FEW

Row = Sequence[object]
DrawImage = Callable[[Path, int, np.random.Generator, str], Iterable[Row]]


def make_dataset(
    folder: str | Path,
    draw: DrawImage,
    *,
    images: int,
    seed: int,
    overwrite: bool,
    columns: Sequence[str] = (),
    truth: TruthKind | None = None,
) -> Dataset:
    """Write a synthetic data set.

    Parameters
    ----------
    folder
        The folder to write.
    draw
        Draws and writes an image: called with the folder, the number of the image, its random generator and its split;
        yields rows of the manifest. So image `i` does not depend on their number.
    images
        Number of images.
    seed
        The same seed gives the same bytes.
    overwrite
        Whether to write to a folder that is not empty.
    columns
        Columns of the manifest; empty without a manifest.
    truth
        The required kind of truth; None for any.

    Returns
    -------
    Dataset
        The data set, opened.

    Raises
    ------
    DatasetError
        The folder is not empty and `overwrite` is false.
    """
    root = Path(folder)
    if root.exists() and (not root.is_dir() or any(root.iterdir())) and not overwrite:
        raise DatasetError(
            f"expected a new or empty folder, {root} contains files",
            field="folder",
            hint="use another folder, or --overwrite",
        )
    rows: list[Row] = []
    for index in range(images):
        rows += draw(root, index, np.random.default_rng([seed, index]), split_of(index, images))
    if columns:
        _write_manifest(root / MANIFEST, [columns, *rows])
    return open_dataset(root, truth=truth)


def split_of(index: int, count: int) -> str:
    """Return the split of an image by its index.

    Every fourth is ``val``, or the last one of two or three; from 48 images, every second of these is ``test``.
    """
    last_of_few = count < 4 and index == count - 1 > 0
    if index % 8 == 7 and count >= 8 * FEW:
        return "test"
    return "val" if index % 4 == 3 or last_of_few else "train"


def sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return ``(Y, X)`` of images that are square, or of a given shape."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _write_manifest(path: Path, rows: Iterable[Row]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_whole(path, text.getvalue())
