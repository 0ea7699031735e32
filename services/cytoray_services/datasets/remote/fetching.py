"""Download of the files of remote data sets: temporary, or to a cache."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cytoray_services.datasets.dataset import Dataset, Item
from cytoray_services.datasets.remote.folder import NAMES, RemoteFolder
from cytoray_services.in_use import claim, lock_of, use, use_always
from cytoray_services.settings import load_settings

KEPT = "files"
PASSING = "passing-"
PASSING_FILES = "files"


def kept(dataset: Dataset, items: Sequence[Item]) -> tuple[Item, ...]:
    """Return the same items with local files in a cache."""
    for remote in dataset.remotes:
        folder = _kept_folder(remote)
        use_always(folder)
        _fetch(remote, items, folder)
        items = [_moved(item, remote, folder) for item in items]
    return tuple(items)


@contextmanager
def passing(dataset: Dataset, items: Sequence[Item]) -> Iterator[tuple[Dataset, tuple[Item, ...]]]:
    """Yield the same data set and items with temporary local files.

    A loop over all images then needs disk space for one.
    """
    if not dataset.remotes:
        yield dataset, tuple(items)
        return
    cache = load_settings().cache
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PASSING, dir=cache) as name, use(Path(name) / PASSING_FILES):
        folder = Path(name) / PASSING_FILES
        for remote in dataset.remotes:
            _fetch(remote, items, folder)
        here = folder / dataset.root.relative_to(NAMES) if dataset.root.is_relative_to(NAMES) else dataset.root
        moved = list(items)
        for remote in dataset.remotes:
            moved = [_moved(item, remote, folder) for item in moved]
        yield replace(dataset, root=here, items=tuple(moved), remotes=()), tuple(moved)


def remove_abandoned(cache: Path) -> None:
    """Remove the temporary files of killed processes."""
    for folder in cache.glob(f"{PASSING}*"):
        with contextlib.suppress(FileNotFoundError):  # its owner, or another process, has removed it
            claimed = claim(folder / PASSING_FILES) if lock_of(folder / PASSING_FILES).exists() else None
            if claimed is not None:
                with claimed:
                    shutil.rmtree(folder)


def _fetch(remote: RemoteFolder, items: Iterable[Item], folder: Path) -> None:
    wanted = [
        path.relative_to(remote.root).as_posix()
        for item in items
        for path in _files(item)
        if path.is_relative_to(remote.root)
    ]
    remote.fetch(wanted, folder / remote.root.relative_to(NAMES))


def _files(item: Item) -> Iterator[Path]:
    yield from item.files
    if item.truth is not None and item.truth.name.endswith("_GT"):  # computed outlines are next to the truth of a movie
        yield item.truth.with_name(item.truth.name.removesuffix("_GT") + "_ST")


def _moved(item: Item, remote: RemoteFolder, folder: Path) -> Item:
    return item.moved(lambda path: _here(path, remote, folder))


def _here(path: Path, remote: RemoteFolder, folder: Path) -> Path:
    return folder / path.relative_to(NAMES) if path.is_relative_to(remote.root) else path


def _kept_folder(remote: RemoteFolder) -> Path:
    """Return the cache folder: a changed bucket has another folder, so the files are always valid."""
    return load_settings().cache / KEPT / remote.identity[:32]
