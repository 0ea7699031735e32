"""Matches paths in a table, or in a folder, to inputs by their last parts."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePath
from urllib.parse import unquote, urlsplit

Parts = tuple[str, ...]


def parts_of(written: str | PurePath) -> Parts:
    r"""Return the parts of a path in composed Unicode; ``\`` separates as ``/`` does, drives and roots are left out."""
    text = unicodedata.normalize("NFC", str(written)).replace("\\", "/")
    return tuple(part for part in text.split("/") if part not in ("", ".", "..") and part[1:] != ":")


def absolute(path: Path) -> Path:
    """Return an absolute path without ``..``; links are not followed, because they have their own names."""
    return Path(os.path.normpath(path.absolute()))


def path_of_uri(uri: str) -> Path:
    """Return the path of a URI; keys of buckets are literal, other paths are percent-encoded."""
    scheme, _, rest = uri.partition("://")
    return Path("/", rest if scheme == "s3" else unquote(urlsplit(uri).path))


class PathMatcher:
    """Finds the input for a complete or partial path.

    Parameters
    ----------
    paths
        The inputs.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._by_name: dict[str, list[tuple[Path, Parts]]] = {}
        for path in paths:
            parts = parts_of(absolute(path))
            self._by_name.setdefault(parts[-1], []).append((path, parts))
        self._meant: dict[str, list[Path]] = {}

    def meant(self, written: str) -> list[Path]:
        """Return the inputs that match a path; more than one if it is ambiguous.

        ``A/img.tif`` matches ``plate/A/img.tif`` and not ``plate/B/img.tif``; ``img.tif`` matches both.
        """
        if written not in self._meant:
            parts = parts_of(written)
            alike = self._by_name.get(parts[-1] if parts else "", [])
            self._meant[written] = [path for path, own in alike if own[-len(parts) :] == parts]
        return self._meant[written]
