"""Locations in an S3 store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cytoray_analysis.errors import ForbiddenError, ImageTooLargeError, MissingFileError, RequestError
from cytoray_services.storage.bounds import check_size
from cytoray_services.storage.downloads import uncounted
from cytoray_services.storage.inside import Inside
from cytoray_services.storage.location import RemoteLocation
from cytoray_services.storage.s3_client import plain_errors, s3_client
from cytoray_services.storage.zarr_stores import BoundedStore

# s3fs cuts keys here, even without versions, so it would read another key than the checked one.
_VERSION = "?versionId="
_PATTERNS = frozenset("*?[")
_MOST_FILES = 2**16


@dataclass(frozen=True)
class S3Location(RemoteLocation):
    """An object of an S3 store, or the objects under a prefix."""

    def check(self) -> None:
        """Raise :class:`ForbiddenError` unless the bucket, or a prefix of the key, is listed."""
        path = self._named
        if any(part in ("", ".", "..") for part in path.split("/")):
            raise ForbiddenError(f"expected s3://bucket/key without empty and '..' parts, got {self}")
        if _VERSION in path:
            raise ForbiddenError(
                f"expected a key without {_VERSION}, got {self}",
                hint="omit it: the newest version is read; copy another version to a new key first",
            )
        if not self._inside.holds(PurePosixPath(path)):
            raise ForbiddenError(
                f"expected an allowed bucket of this service, got {self}",
                hint="the operator lists buckets in the configuration of the service (allowed.buckets)",
            )

    def exists(self) -> bool:
        """Whether the object, or one below the prefix, exists."""
        with self._reported():
            return bool(self._store().exists(self._path))

    def is_folder(self) -> bool:
        """Whether there are objects below the prefix."""
        with self._reported():
            return bool(self._store().isdir(self._path))

    def read_bytes(self, count: Callable[[int], None] = uncounted) -> bytes:
        """Return the object's bytes."""
        with self._reported():
            size = self._size()
            count(size)
            body: bytes = self._store().cat_file(self._path, start=0, end=size) if size else b""
            return body

    def write_bytes(self, body: bytes) -> None:
        """Write the object."""
        with self._reported():
            self._store().pipe_file(self._path, body)

    def delete(self) -> None:
        """Remove the object, or all objects below the prefix."""
        if PurePosixPath(self._path) in self._inside.roots:
            raise ForbiddenError(f"{self} is a root folder of the service and cannot be deleted")
        self._require_whole()
        with self._reported():
            store = self._store()
            for key in store.find(self._path):
                store.rm_file(key)

    def zarr_store(self, *, writing: bool) -> Any:
        """Return the zarr store under the prefix.

        Raises
        ------
        RequestError
            The key is a pattern, for writing: s3fs would remove the chunks of all matching keys.
        """
        from zarr.storage import FsspecStore

        if writing and not _PATTERNS.isdisjoint(self._path):
            raise RequestError(
                f"expected a key without *, ? and [ to write an OME-Zarr below, got {self}", hint="use another prefix"
            )
        self._require_whole()
        with self._reported():
            store = FsspecStore(self._store(asynchronous=True), read_only=not writing, path=self._path)
        return BoundedStore(store, str(self), self.allowed.largest_file)

    def _names(self) -> list[str]:
        with self._reported():
            store = self._store()
            if not store.isdir(self._path):
                return []
            found = store.ls(self._path, detail=False)
            return sorted({key.rstrip("/").rpartition("/")[2] for key in found if key.rstrip("/") != self._path})

    def _download(self, target: Path) -> None:
        self._require_whole()
        with self._reported():
            store = self._store()
            if store.isfile(self._path):
                self._size()
                store.get_file(self._path, str(target))
                return
            found = store.find(self._path, detail=True)
            if not found:
                raise MissingFileError(f"{self} does not exist", hint="check the URI")
            if len(found) > _MOST_FILES:
                raise ImageTooLargeError(
                    f"expected at most {_MOST_FILES} objects in one folder, {self} has {len(found)}",
                    hint="use the prefixes below it, or store it as OME-Zarr with larger chunks or shards",
                )
            check_size(str(self), sum(int(about["size"] or 0) for about in found.values()), self.allowed.largest_file)
            for key, about in found.items():
                below = key.removeprefix(f"{self._path}/")
                self.joined(below)  # a key may contain '..', which S3 ignores but a file system does not
                check_size(f"{self}/{below}", int(about["size"] or 0), self.allowed.largest_file)
                path = target.joinpath(*below.split("/"))
                path.parent.mkdir(parents=True, exist_ok=True)
                store.get_file(key, str(path))

    def _size(self) -> int:
        size = int(self._store().info(self._path)["size"] or 0)
        check_size(str(self), size, self.allowed.largest_file)
        return size

    def _require_whole(self) -> None:
        """Raise an error if the prefix contains forbidden prefixes."""
        if self._inside.others_below(PurePosixPath(self._path)):
            raise ForbiddenError(
                f"expected a prefix without prefixes of other teams, got {self}",
                hint="use the prefixes below it",
            )

    def _below(self, name: str) -> str:
        return f"{self.uri.rstrip('/')}/{name}"

    @property
    def _inside(self) -> Inside:
        listed = (self.allowed.buckets, self.allowed.refused_buckets)
        return Inside(*(tuple(PurePosixPath(one.removeprefix("s3://").strip("/")) for one in some) for some in listed))

    @property
    def _named(self) -> str:
        return self.uri.partition("://")[2].rstrip("/")

    @property
    def _path(self) -> str:
        """Bucket and key, after a check, because locations also come from listings and metadata."""
        self.check()
        return self._named

    def _store(self, *, asynchronous: bool = False) -> Any:
        return s3_client(self.allowed.s3_endpoint, asynchronous=asynchronous)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        with super()._reported(), plain_errors():
            yield
