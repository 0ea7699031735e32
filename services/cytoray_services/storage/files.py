"""Locations on this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from cytoray_analysis.errors import ForbiddenError, MissingFileError, RequestError
from cytoray_analysis.files import sync_disk, write_whole
from cytoray_services.storage.bounds import check_size
from cytoray_services.storage.downloads import bounded, uncounted
from cytoray_services.storage.inside import Inside, require_all_inside
from cytoray_services.storage.location import StorageLocation
from cytoray_services.storage.zarr_stores import BoundedStore, InsideStore

_PIECE = 2**20


@dataclass(frozen=True)
class FileLocation(StorageLocation):
    """A file or folder of this machine."""

    gives_copies: ClassVar[bool] = False

    def check(self) -> None:
        """Raise :class:`ForbiddenError` unless the path, with symbolic links resolved, is in an allowed folder."""
        self._path()

    def exists(self) -> bool:
        """Whether a file or folder exists."""
        with self._reported():
            return self._path().exists()

    def is_folder(self) -> bool:
        """Whether it is a folder."""
        with self._reported():
            return self._path().is_dir()

    def read_bytes(self, count: Callable[[int], None] = uncounted) -> bytes:
        """Return the file's bytes."""
        with self._reported():
            path, most = self._file(), self.allowed.largest_file
            with path.open("rb") as file:
                return b"".join(bounded(iter(lambda: file.read(_PIECE), b""), most, str(self), count))

    def write_bytes(self, body: bytes) -> None:
        """Write the file, and create its parent folders."""
        with self._reported():
            write_whole(self._path(), body, durable=False)

    def settle(self) -> None:
        """Wait until all writes to the file system of this location are on disk."""
        with self._reported():
            sync_disk(next(path for path in (self._path(), *self._path().parents) if path.is_dir()))

    def delete(self) -> None:
        """Remove the file or the folder."""
        with self._reported():
            path = self._path()
            if path in self._inside().roots:
                raise ForbiddenError(f"{self} is a root folder of the service and cannot be deleted")
            if path.is_dir():
                self._inside().require_whole(path)
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def remove_drafts(self, starts: tuple[str, ...]) -> None:
        """Remove the files of this folder with these prefixes, which killed processes left behind."""
        with self._reported():
            for draft in self._path().glob(".*"):
                if draft.name.startswith(starts) and draft.is_file():
                    draft.unlink(missing_ok=True)

    def zarr_store(self, *, writing: bool) -> Any:
        """Return the zarr store of the folder."""
        store = InsideStore(self._path(), inside=self._inside(), read_only=not writing)
        return BoundedStore(store, str(self), self.allowed.largest_file)

    @contextmanager
    def local(self) -> Iterator[Path]:
        """Yield the path; for a folder, check that no link leads out of allowed folders and no file is too large."""
        with self._reported():
            path = self._path()
            if path.is_dir():
                require_all_inside(path, self._inside(), largest=self.allowed.largest_file)
            else:
                path = self._file()
        yield path

    def _names(self) -> list[str]:
        with self._reported():
            path = self._path()
            return sorted(child.name for child in path.iterdir()) if path.is_dir() else []

    def _file(self) -> Path:
        path = self._path()
        if not path.exists():
            raise MissingFileError(f"{self} does not exist", hint="check the URI")
        if not path.is_file():
            raise RequestError(f"expected a file, got the folder or device {self}", hint="use a single file")
        check_size(str(self), path.stat().st_size, self.allowed.largest_file)
        return path

    def _inside(self) -> Inside:
        return Inside.of(self.allowed.roots, self.allowed.refused_roots)

    def _path(self) -> Path:
        parts = urlsplit(self.uri)
        if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            raise RequestError(
                f"expected file:///path, got {str(self)[:200]!r}",
                hint="hosts, queries and fragments are not supported; write ? as %3F and # as %23",
            )
        text = unquote(parts.path)
        if "\0" in text or ".." in text.split("/"):
            raise ForbiddenError("expected a path without '..'", hint="use the full path")
        path = Path(os.path.realpath(text))
        if not self._inside().holds(path):
            raise ForbiddenError(
                f"expected a file in an allowed folder of this service, got {self}",
                hint="the operator lists folders in the configuration of the service (allowed.roots)",
            )
        return path
