"""Lookup of the paths of a manifest, independent of Unicode forms and path separators."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath

from cytoray_services.datasets.remote.folder import RemoteFolder


class Spelling:
    r"""Looks up paths in a folder; a missing path stays as in the manifest.

    A letter with an accent can be one character or two (macOS writes two), and tables from Windows separate folders
    with ``\``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = lru_cache(maxsize=None)(_names_in)

    def path_of(self, text: str) -> Path:
        """Return the path of a file or folder of a manifest."""
        path = self._folder / text
        if path.exists() or "\x00" in text:
            return path
        for tried in (text, PureWindowsPath(text).as_posix() if "\\" in text else text):
            found = self._on_disk(tried)
            if found is not None:
                return found
        return path

    def _on_disk(self, text: str) -> Path | None:
        place = self._folder
        parts = PurePosixPath(text).parts
        if text.startswith("/"):
            place, parts = Path("/"), parts[1:]
        for part in parts:
            exact = place / part
            if part == ".." or exact.exists():
                place = exact
                continue
            known = self._names(place).get(_composed(part))
            if known is None:
                return None
            place = place / known
        return place


def remote_spelling(remote: RemoteFolder) -> Mapping[str, str]:
    """Return the names of all files and folders of a store, keyed by their composed Unicode form."""
    return {_composed(name): name for name in (*remote.folders, *remote.files)}


def spelled_remotely(path: Path, remote: RemoteFolder, names: Mapping[str, str]) -> Path:
    """Return the path of a file in a store, in the spelling of the store."""
    if not path.is_relative_to(remote.root):
        return path
    name = path.relative_to(remote.root).as_posix()
    if remote.below(name):
        return path
    tried = (name, name.replace("\\", "/"))
    found = next((names[composed] for one in tried if (composed := _composed(one)) in names), None)
    return path if found is None else remote.root / found


def _names_in(folder: Path) -> Mapping[str, str]:
    try:
        return {_composed(entry.name): entry.name for entry in folder.iterdir()}
    except OSError:  # not a folder: its files are missing, which the check reports
        return {}


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)
