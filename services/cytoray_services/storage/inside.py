"""Allowed folders and prefixes, the content of a folder, and the targets of its links."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from cytoray_analysis.errors import ForbiddenError
from cytoray_services.storage.bounds import check_size


@dataclass(frozen=True)
class Inside:
    """Allowed folders, and forbidden folders in them, all with links resolved.

    Buckets and prefixes count as folders.
    """

    roots: tuple[PurePath, ...]
    refused: tuple[PurePath, ...] = ()

    @classmethod
    def of(cls, roots: Iterable[Path], refused: Iterable[Path] = ()) -> Inside:
        """Resolve the links of folders."""
        return cls(*(tuple(Path(os.path.realpath(one)) for one in folders) for folders in (roots, refused)))

    def holds(self, real: PurePath) -> bool:
        """Whether a resolved path is allowed: the innermost folder that contains it decides."""
        return depth(real, self.roots) > 0 and depth(real, self.roots) >= depth(real, self.refused)

    def others_below(self, folder: PurePath) -> list[PurePath]:
        """Return the forbidden folders below a folder."""
        return [one for one in self.refused if one.is_relative_to(folder) and not self.holds(one)]

    def require_whole(self, folder: Path) -> None:
        """Raise an error if a folder contains forbidden folders.

        Raises
        ------
        ForbiddenError
            It contains one.
        """
        if any(Path(one).exists() for one in self.others_below(folder)):
            raise ForbiddenError(
                f"expected a folder without folders of other teams, got {folder.name}",
                hint="use the folders in it",
            )


def depth(path: PurePath, folders: Iterable[PurePath]) -> int:
    """Return the number of parts of the innermost folder that contains a path; 0 if none does."""
    return max((len(one.parts) for one in folders if path.is_relative_to(one)), default=0)


def require_inside(path: Path, inside: Inside) -> Path:
    """Return the path with its symbolic links resolved.

    Raises
    ------
    ForbiddenError
        The path is not allowed.
    """
    real = Path(os.path.realpath(path))
    if not inside.holds(real):
        raise ForbiddenError(
            f"expected a folder with files in allowed folders of this service only, got {path.name}, a link that leads "
            "out of them",
            hint="the operator lists folders in the configuration of the service (allowed.roots)",
        )
    return real


def require_all_inside(folder: Path, inside: Inside, *, largest: int) -> None:
    """Raise an error if a folder contains, at any depth, a link out of the allowed folders, or a forbidden folder.

    Parameters
    ----------
    largest
        Maximum bytes of one file.

    Raises
    ------
    ForbiddenError
        It contains one.
    ImageTooLargeError
        A file is larger.
    """
    inside.require_whole(folder)
    for path in walk(folder):
        if path.is_symlink():
            real = require_inside(path, inside)
            if real.is_dir():
                inside.require_whole(real)
        if path.is_file():
            check_size(str(path.relative_to(folder)), path.stat().st_size, largest)


def walk(folder: Path) -> Iterator[Path]:
    """Yield everything below a folder, and once everything below each linked folder.

    A link comes before its content, so that a caller who rejects the link reads none of it.
    """
    known: set[Path] = set()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        real = Path(os.path.realpath(here))
        if real in known:
            continue
        known.add(real)
        for parent, folders, files in os.walk(here):
            for name in (*folders, *files):
                path = Path(parent, name)
                yield path
                if path.is_symlink() and path.is_dir():
                    waiting.append(path)
