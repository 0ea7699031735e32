"""What lies below a folder of this machine, and where the links in it lead."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from zarr.storage import LocalStore

from cytoray_analysis.errors import ForbiddenError

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype


def require_inside(path: Path, roots: Sequence[Path]) -> Path:
    """Return the path with its symbolic links resolved.

    Parameters
    ----------
    roots
        Folders that may be used, resolved.

    Raises
    ------
    ForbiddenError
        It lies in none of them.
    """
    real = Path(os.path.realpath(path))
    if not any(real.is_relative_to(root) for root in roots):
        raise ForbiddenError(
            f"expected all that lies in a folder to lie in folders that this service may use, got {path.name}, a link "
            "that leads out of them",
            hint="the operator lists folders in the service's configuration (allowed.roots)",
        )
    return real


def require_all_inside(folder: Path, roots: Sequence[Path]) -> None:
    """Refuse a folder in which a link, at any depth, leads out of the folders that may be used.

    Raises
    ------
    ForbiddenError
        One does.
    """
    seen: set[Path] = set()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        waiting += _folders_below(here, roots)


def _folders_below(folder: Path, roots: Sequence[Path]) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            if path.is_symlink():
                real = require_inside(path, roots)
                if real.is_dir():
                    yield real


class InsideStore(LocalStore):
    """The zarr store of a folder, which follows no link out of the folders that may be used.

    Parameters
    ----------
    root
        The folder.
    inside
        The folders that may be used, resolved.
    """

    def __init__(self, root: Path | str, *, inside: Sequence[Path], read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self._inside = tuple(inside)

    def with_read_only(self, read_only: bool = False) -> Self:
        """Return a store of the same folder that may be written, or may not."""
        return type(self)(self.root, inside=self._inside, read_only=read_only)

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read what lies at a key."""
        self._require(key)
        return await super().get(key, prototype, byte_range)

    def get_sync(self, key: str, **options: Any) -> Buffer | None:
        """Read what lies at a key."""
        self._require(key)
        return super().get_sync(key, **options)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Read parts of what lies at some keys."""
        wanted = list(key_ranges)
        for key, _ in wanted:
            self._require(key)
        return await super().get_partial_values(prototype, wanted)

    async def _set(self, key: str, value: Buffer, exclusive: bool = False) -> None:
        self._require(key)
        await super()._set(key, value, exclusive)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Write at a key."""
        self._require(key)
        super().set_sync(key, value)

    def _require(self, key: str) -> None:
        require_inside(self.root / key, self._inside)
