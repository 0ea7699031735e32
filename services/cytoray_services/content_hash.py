"""The hash of the content of a data set, from the hashes of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cytoray_analysis.errors import MissingFileError


def file_digest(path: Path) -> str:
    """Return the sha256 of a file, or of the names and contents of all files in a folder such as OME-Zarr.

    Raises
    ------
    MissingFileError
        `path` does not exist.
    """
    if path.is_dir():
        parts = sorted((part.relative_to(path).as_posix(), part) for part in path.rglob("*") if part.is_file())
        listing = "\n".join(f"{name}\t{file_digest(part)}" for name, part in parts)
        return hashlib.sha256(listing.encode()).hexdigest()
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist", hint="run cytoray data check on the data set")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rows_digest(rows: Iterable[Sequence[Any]]) -> str:
    """Return the hash of a data set, whatever the order of its items.

    Parameters
    ----------
    rows
        Of each item: the path of the image in the folder, the digest of the image, that of the truth (or the row of
        the manifest that contains it), the split, and if there is a mask of known pixels, the digest of that mask.

    Returns
    -------
    str
        64 hexadecimal digits (sha256).
    """
    return hashlib.sha256("\n".join(sorted(json.dumps(list(row)) for row in rows)).encode()).hexdigest()
