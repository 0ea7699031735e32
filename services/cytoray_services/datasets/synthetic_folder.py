"""What every synthetic data set needs of its folder: to be new, to be split, to be listed."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from cytoray_analysis.errors import DatasetError
from cytoray_services.datasets.manifest import MANIFEST
from cytoray_services.statistics import FEW


def new_folder(folder: str | Path, *, overwrite: bool) -> Path:
    """Return the folder to write to.

    Raises
    ------
    DatasetError
        It holds something and `overwrite` is false.
    """
    root = Path(folder)
    if root.exists() and (not root.is_dir() or any(root.iterdir())) and not overwrite:
        raise DatasetError(
            f"{root} is there already and holds something",
            field="folder",
            hint="name another folder, or overwrite it",
        )
    return root


def split_of(index: int, count: int) -> str:
    """Return the split of an image by its place.

    Every fourth is ``val``, of two or three the last one; from 48 on every second of these is ``test``.
    """
    last_of_few = count < 4 and index == count - 1 > 0
    if index % 8 == 7 and count >= 8 * FEW:
        return "test"
    return "val" if index % 4 == 3 or last_of_few else "train"


def write_manifest(root: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write the manifest of a data set, whole or not at all."""
    temporary = root / f".{MANIFEST}.part"
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    temporary.replace(root / MANIFEST)
