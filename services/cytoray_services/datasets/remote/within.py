"""Checks that all files of a data set are in given folders, including targets of manifests and links."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from cytoray_analysis.errors import ForbiddenError
from cytoray_services.datasets.dataset import Dataset
from cytoray_services.datasets.remote.data_uris import folder_of_claim, path_or_uri
from cytoray_services.storage.inside import Inside, walk


def require_within(dataset: Dataset, within: Sequence[Path | str]) -> None:
    """Raise an error if a data set refers or links to files elsewhere.

    Parameters
    ----------
    within
        Folders, as paths or ``pvc://…``. Files in the store of the data set are found there by name only.

    Raises
    ------
    ForbiddenError
        A file is elsewhere; the message names it.
    """
    paths = [path for item in dataset.items for path in item.files]
    # Names in a store are relative; a manifest there may refer to local files.
    local = [path for path in dict.fromkeys(paths) if path.is_absolute()]
    folders = [] if dataset.remotes else [dataset.root]
    folders += [path.parent for path in local if not any(path.is_relative_to(one) for one in folders)]
    require_paths_within(chain(folders, local, _links_in(dict.fromkeys(folders))), within)


def require_folder_within(folder: Path, within: Sequence[Path | str]) -> None:
    """Raise an error for a folder elsewhere, or with a link to elsewhere; see :func:`require_within`."""
    require_paths_within(chain([folder], _links_in([folder])), within)


def require_paths_within(paths: Iterable[Path], within: Sequence[Path | str]) -> None:
    """Raise an error for paths elsewhere, with links resolved; see :func:`require_within`."""
    inside = Inside.of(
        one if isinstance(one, Path) else folder_of_claim(one)
        for one in map(path_or_uri, within)
        if isinstance(one, Path) or one.startswith("pvc://")
    )
    for path in paths:
        if not inside.holds(Path(os.path.realpath(path))):
            raise ForbiddenError(
                f"expected data in {', '.join(map(str, within)) or 'a store'}, got {path}, which is outside",
                field="data.within",
                hint="put the files into the folders of the recipe, instead of links and paths to other folders",
            )


def _links_in(folders: Iterable[Path]) -> Iterator[Path]:
    return (path for folder in folders for path in walk(folder) if path.is_symlink())
