"""The content hash of a data set: the same images, truth and split, the same hash, wherever the folder is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from cytoray_analysis.errors import MissingFileError
from cytoray_services.datasets.dataset import Dataset


def file_digest(path: Path) -> str:
    """Return the sha256 of a file, or of the names and contents of all files in a folder such as OME-Zarr.

    Raises
    ------
    MissingFileError
        When there is nothing at `path`.
    """
    if path.is_dir():
        parts = sorted((part.relative_to(path).as_posix(), part) for part in path.rglob("*") if part.is_file())
        listing = "\n".join(f"{name}\t{file_digest(part)}" for name, part in parts)
        return hashlib.sha256(listing.encode()).hexdigest()
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist", hint="run cytoray data check on the data set")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_dataset(dataset: Dataset) -> str:
    """Return the content hash of a data set, which the registry records with every model trained on it.

    It covers, for each item, the image's path inside the folder, the bytes of image and truth, and the split; where the
    truth is no file, all columns of the item's row. Neither the order of the items nor the place of the folder counts.

    Returns
    -------
    str
        64 hexadecimal digits (sha256).

    Raises
    ------
    MissingFileError
        When a file is missing.
    """
    digests: dict[Path, str] = {}

    def digest(path: Path) -> str:
        if path not in digests:
            digests[path] = file_digest(path)
        return digests[path]

    lines = sorted(
        json.dumps(
            [
                _inside(item.image, dataset.root),
                digest(item.image),
                # Where the truth is no file it is in the row, as a class or a box.
                digest(item.truth) if item.truth else sorted(item.row.items()),
                item.split,
            ]
        )
        for item in dataset.items
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _inside(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
