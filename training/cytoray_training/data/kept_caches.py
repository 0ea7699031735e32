"""Data that training runs cache on this machine: list, and remove if no process uses it."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cytoray_analysis.errors import RequestError
from cytoray_analysis.files import draft_name
from cytoray_services.datasets.remote.fetching import KEPT, PASSING, PASSING_FILES
from cytoray_services.in_use import claim, lock_of, users
from cytoray_services.settings import Settings

SHARDS = "shards"
_DAY = 86400.0
_KEY = re.compile(r"[0-9a-f]{32}")
_HOLDS: dict[str, Callable[[Path], bool]] = {
    "images": lambda folder: _KEY.fullmatch(folder.name) is not None,
    "shards": lambda folder: any(folder.glob("*.bin")),  # else it only contains their size
    "files": lambda folder: True,
}


@dataclass(frozen=True)
class KeptCache:
    """A folder that is created again if it is missing.

    Attributes
    ----------
    key
        Its name.
    what
        ``images`` (decoded), ``shards``, ``files`` (of a bucket), or ``unfinished``: left by a killed process, or
        currently written.
    data
        Place of the data set; None if the folder does not record it.
    bytes
        Size of all its files.
    made, used
        Time of creation and last use, in seconds since 1970.
    users
        Processes of this machine that use it, empty if they are on other machines; None if no process uses it.
    """

    key: str
    what: str
    folder: Path
    data: str | None
    bytes: int
    made: float
    used: float
    users: tuple[int, ...] | None


def list_caches(settings: Settings) -> list[KeptCache]:
    """Return all caches on this machine, last used first."""
    found = [_described(what, folder) for what, folder in _folders(settings)]
    return sorted(found, key=lambda one: -one.used)


def choose_caches(caches: Sequence[KeptCache], keys: Sequence[str], older_than: float | None) -> list[KeptCache]:
    """Return the caches with certain keys, or all, that were not used for a number of days.

    Parameters
    ----------
    keys
        Names or their first characters; empty for all.
    older_than
        Days; None for any.

    Raises
    ------
    RequestError
        Neither is given, or a key matches none or several.
    """
    if not keys and older_than is None:
        raise RequestError(
            "expected keys, --older-than DAYS or both, found neither", field="key", hint="see: cytoray cache list"
        )
    chosen = [_named(caches, key) for key in dict.fromkeys(keys)] if keys else list(caches)
    before = time.time() - (older_than or 0.0) * _DAY
    return [one for one in chosen if older_than is None or one.used <= before]


def remove_cache(cache: KeptCache) -> bool:
    """Remove a folder, unless it is in use; return whether it was removed."""
    claimed = claim(_guarded(cache.what, cache.folder))
    if claimed is None:
        return False
    with claimed:
        if cache.folder.exists():
            # Rename first, so that a partly removed folder is not considered complete.
            gone = cache.folder.replace(draft_name(cache.folder)) if cache.what != "unfinished" else cache.folder
            shutil.rmtree(gone)
    return True


def _folders(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Yield folders with their kind; small files, such as digests, are left out."""
    places = (("images", settings.cache), ("shards", settings.home / SHARDS), ("files", settings.cache / KEPT))
    for what, parent in places:
        for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
            if not folder.is_dir():
                continue
            if folder.name.startswith((".", PASSING)):
                yield "unfinished", folder
            elif _HOLDS[what](folder):
                yield what, folder


def _guarded(what: str, folder: Path) -> Path:
    """Return the folder whose lock shows whether another is in use: for a draft, its final folder."""
    if what != "unfinished":
        return folder
    if folder.name.startswith(PASSING):
        return folder / PASSING_FILES
    return folder.with_name(folder.name.removeprefix(".").rpartition(".")[0])


def _described(what: str, folder: Path) -> KeptCache:
    guarded = _guarded(what, folder)
    index = folder / "index.json"
    data = json.loads(index.read_text(encoding="utf-8")).get("of") if index.is_file() else None
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    made = folder.stat().st_mtime
    lock = lock_of(guarded)
    used = max(made, lock.stat().st_mtime) if what != "unfinished" and lock.exists() else made
    return KeptCache(folder.name, what, folder, data, sum(one.st_size for one in files), made, used, users(guarded))


def _named(caches: Sequence[KeptCache], key: str) -> KeptCache:
    found = [one for one in caches if one.key == key] or [one for one in caches if key and one.key.startswith(key)]
    if len(found) != 1:
        raise RequestError(
            f"expected the key of one cache, got {key!r}, which matches {len(found)}",
            field="key",
            hint="use more characters of the key; see: cytoray cache list",
        )
    return found[0]
