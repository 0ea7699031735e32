"""Locations at web addresses: read-only, with checked requests, also for chunks of zarr."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fsspec.asyn import AsyncFileSystem

from cytoray_analysis.errors import ForbiddenError, MissingFileError
from cytoray_services.storage.bounds import check_size, most_of
from cytoray_services.storage.downloads import Hosts, ask, bounded, uncounted
from cytoray_services.storage.location import RemoteLocation


@dataclass(frozen=True)
class WebLocation(RemoteLocation):
    """A file at an http or https address; read-only."""

    def check(self) -> None:
        """Raise :class:`ForbiddenError` unless the host is listed."""
        self._hosts.check(self.uri)

    def exists(self) -> bool:
        """Whether the host has the file."""
        try:
            with ask("HEAD", self.uri, self._hosts):
                return True
        except MissingFileError:
            return False

    def is_folder(self) -> bool:
        """Web addresses are never folders."""
        return False

    def is_zarr(self) -> bool:
        """Whether it is an OME-Zarr; only addresses with ``.zarr`` are checked."""
        return ".zarr" in urlsplit(self.uri).path and super().is_zarr()

    def read_bytes(self, count: Callable[[int], None] = uncounted) -> bytes:
        """Return the file's bytes."""
        return b"".join(self._parts(count))

    def write_bytes(self, body: bytes) -> None:
        """Refuse."""
        raise self._read_only()

    def delete(self) -> None:
        """Refuse."""
        raise self._read_only()

    def zarr_store(self, *, writing: bool) -> Any:
        """Return a zarr store that downloads chunk by chunk."""
        from zarr.storage import FsspecStore

        if writing:
            raise self._read_only()
        self.check()
        return FsspecStore(WebFiles(self, skip_instance_cache=True, asynchronous=True), read_only=True, path="")

    def _names(self) -> list[str]:
        return []

    def _download(self, target: Path) -> None:
        with target.open("wb") as file:
            for part in self._parts():
                file.write(part)

    def read_range(self, start: int | None, end: int | None) -> bytes:
        """Return the bytes ``[start:end]``; from hosts without ranges, the whole file is downloaded."""
        if start is None and end is None:
            return self.read_bytes()
        begin = start or 0
        span = f"{begin}" if begin < 0 else f"{begin}-{'' if end is None else end - 1}"
        with ask("GET", self.uri, self._hosts, headers={"Range": f"bytes={span}"}) as reply:
            body = b"".join(bounded(reply.parts, self._most, str(self)))
        return body if reply.status == 206 else body[start:end]

    def _parts(self, count: Callable[[int], None] = uncounted) -> Iterator[bytes]:
        with ask("GET", self.uri, self._hosts) as reply:
            check_size(str(self), reply.length or 0, self._most)
            yield from bounded(reply.parts, self._most, str(self), count)

    def _read_only(self) -> ForbiddenError:
        return ForbiddenError(f"expected a writable location, got {self}", hint="use a file or s3 URI")

    @property
    def _most(self) -> int:
        return most_of(self.name, self.allowed.largest_file)

    @property
    def _hosts(self) -> Hosts:
        return Hosts(self.allowed.hosts, self.allowed.private_hosts)


class WebFiles(AsyncFileSystem):  # type: ignore[misc]
    """The files below a web address, for zarr.

    Parameters
    ----------
    location
        The base address of the paths.
    """

    protocol = "cytoray-web"

    def __init__(self, location: WebLocation, **options: Any) -> None:
        super().__init__(**options)
        self.location = location

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        return await asyncio.to_thread(self._below(path).read_range, start, end)

    async def _exists(self, path: str, **options: Any) -> bool:
        return await asyncio.to_thread(self._below(path).exists)

    def _below(self, path: str) -> WebLocation:
        below = self.location.joined(path.strip("/"))
        assert isinstance(below, WebLocation)  # noqa: S101 - joined keeps the kind
        return below
