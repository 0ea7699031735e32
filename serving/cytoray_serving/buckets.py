"""Places in an S3 store, through s3fs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cytoray_analysis.errors import ForbiddenError, MissingFileError, PlatformError
from cytoray_serving.downloads import too_large
from cytoray_serving.places import RemotePlace, reason_of


@dataclass(frozen=True)
class BucketPlace(RemotePlace):
    """An object of an S3 store, or what lies under a prefix."""

    def check(self) -> None:
        """Raise :class:`ForbiddenError` unless the bucket, or a prefix of the key, is listed."""
        path = self._path
        if any(part in ("", ".", "..") for part in path.split("/")):
            raise ForbiddenError(f"expected s3://bucket/key without empty and '..' parts, got {self}")
        if not any(_within(path, entry.removeprefix("s3://").strip("/")) for entry in self.allowed.buckets):
            raise ForbiddenError(
                f"expected a bucket that this service may use, got {self}",
                hint="the operator lists buckets in the service's configuration (allowed.buckets)",
            )

    def exists(self) -> bool:
        """Whether the object is there, or one below the prefix."""
        with self._reported():
            return bool(self._store().exists(self._path))

    def is_folder(self) -> bool:
        """Whether objects lie below the prefix."""
        with self._reported():
            return bool(self._store().isdir(self._path))

    def read_bytes(self) -> bytes:
        """Return the object's bytes."""
        with self._reported():
            size = self._size(self._path)
            body: bytes = self._store().cat_file(self._path, start=0, end=size) if size else b""
            return body

    def write_bytes(self, body: bytes) -> None:
        """Write the object."""
        with self._reported():
            self._store().pipe_file(self._path, body)

    def delete(self) -> None:
        """Remove the object, or all objects below the prefix."""
        if self._path in [entry.removeprefix("s3://").strip("/") for entry in self.allowed.buckets]:
            raise ForbiddenError(f"{self} is a root of the service and stays")
        with self._reported():
            store = self._store()
            for key in store.find(self._path):
                store.rm_file(key)

    def zarr_store(self, *, writing: bool) -> Any:
        """Return the zarr store under the prefix."""
        from zarr.storage import FsspecStore

        self.check()
        with self._reported():
            return FsspecStore(self._store(asynchronous=True), read_only=not writing, path=self._path)

    def _names(self) -> list[str]:
        with self._reported():
            store = self._store()
            if not store.isdir(self._path):
                return []
            found = store.ls(self._path, detail=False)
            return sorted({key.rstrip("/").rpartition("/")[2] for key in found if key.rstrip("/") != self._path})

    def _download(self, target: Path) -> None:
        with self._reported():
            store = self._store()
            keys = {self._path: target} if store.isfile(self._path) else {}
            for key in [] if keys else store.find(self._path):
                below = key.removeprefix(f"{self._path}/")
                self.joined(below)  # a key may hold '..', which means nothing to S3 and much to a file system
                keys[key] = target.joinpath(*below.split("/"))
            if not keys:
                raise MissingFileError(f"{self} does not exist", hint="check the URI")
            left = self.allowed.largest_file
            for key, path in keys.items():
                left -= self._size(key, left)
                path.parent.mkdir(parents=True, exist_ok=True)
                store.get_file(key, str(path))

    def _size(self, key: str, limit: int | None = None) -> int:
        size = int(self._store().info(key)["size"] or 0)
        limit = self.allowed.largest_file if limit is None else limit
        if size > limit:
            raise too_large(str(self), size, limit)
        return size

    def _below(self, name: str) -> str:
        return f"{self.uri.rstrip('/')}/{name}"

    @property
    def _path(self) -> str:
        return self.uri.partition("://")[2].rstrip("/")

    def _store(self, *, asynchronous: bool = False) -> Any:
        import s3fs

        seconds = {"connect_timeout": 5, "read_timeout": 20, "retries": {"max_attempts": 1}}
        store = s3fs.S3FileSystem(
            endpoint_url=self.allowed.s3_endpoint,
            config_kwargs=seconds,
            asynchronous=asynchronous,
            use_listings_cache=False,
        )
        store.retries = 1  # its own, on top of those of boto
        return store

    @contextmanager
    def _reported(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            with super()._reported():
                yield
        except (BotoCoreError, ClientError) as error:
            raise PlatformError(f"{self} cannot be used: {reason_of(error)}", hint="try again later") from error


def _within(path: str, entry: str) -> bool:
    return path == entry or path.startswith(f"{entry}/")
