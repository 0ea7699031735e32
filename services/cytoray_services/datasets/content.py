"""The content hash of a data set: it depends on images, truth and split, not on the path of the folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cytoray_services.content_hash import file_digest, rows_digest
from cytoray_services.datasets.dataset import Dataset
from cytoray_services.datasets.remote.folder import RemoteFolder
from cytoray_services.settings import load_settings


def hash_dataset(dataset: Dataset) -> str:
    """Return the content hash of a data set, which the registry records with every model trained on it.

    It includes, for each item, the path of the image in the folder, the bytes of image, truth and mask of known
    pixels, and the split; if the truth is not a file, all columns of the row. It is independent of the order of the
    items and the path of the folder.

    Returns
    -------
    str
        64 hexadecimal digits (sha256).

    Raises
    ------
    MissingFileError
        A file is missing.
    """
    digests = content_digests(dataset, (path for item in dataset.items for path in item.files))
    return rows_digest(
        [
            dataset.name_of(item.image),
            digests[item.image],
            # A truth without a file is in the row, as a class or a box.
            digests[item.truth] if item.truth else sorted(item.row.items()),
            item.split,
            *([digests[item.known]] if item.known else []),
        ]
        for item in dataset.items
    )


def content_digests(dataset: Dataset, paths: Iterable[Path]) -> dict[Path, str]:
    """Return the digest of files of a data set; those in stores are read once, without a copy.

    Raises
    ------
    MissingFileError
        A file is missing.
    """
    digests: dict[Path, str] = {}
    remote: dict[RemoteFolder, list[Path]] = {}
    for path in dict.fromkeys(paths):
        home = next((one for one in dataset.remotes if path.is_relative_to(one.root)), None)
        if home is None:
            digests[path] = file_digest(path)
        else:
            remote.setdefault(home, []).append(path)
    for folder, inside in remote.items():
        names = {path.relative_to(folder.root).as_posix(): path for path in inside}
        found = folder.digests(names, load_settings().cache / "digests")
        digests |= {names[name]: digest for name, digest in found.items()}
    return digests


def is_there(dataset: Dataset, path: Path) -> bool:
    """Whether a data set has a file or folder of that path."""
    for remote in dataset.remotes:
        if path.is_relative_to(remote.root):
            return bool(remote.below(path.relative_to(remote.root).as_posix()))
    return path.exists()
