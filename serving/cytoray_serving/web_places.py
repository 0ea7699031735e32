"""Places behind web addresses: read only, asked in the one checked way, also where zarr asks for chunks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fsspec.asyn import AsyncFileSystem

from cytoray_analysis.errors import ForbiddenError, MissingFileError
from cytoray_serving.downloads import Hosts, ask, bounded, too_large
from cytoray_serving.places import RemotePlace


@dataclass(frozen=True)
class WebPlace(RemotePlace):
    """A file behind an http or https address; read only."""

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
        """Web addresses are no folders."""
        return False

    def is_zarr(self) -> bool:
        """Whether it is an OME-Zarr; only addresses with ``.zarr`` in them are asked."""
        return ".zarr" in urlsplit(self.uri).path and super().is_zarr()

    def read_bytes(self) -> bytes:
        """Return the file's bytes."""
        return b"".join(self._parts())

    def write_bytes(self, body: bytes) -> None:
        """Refuse."""
        raise self._read_only()

    def delete(self) -> None:
        """Refuse."""
        raise self._read_only()

    def zarr_store(self, *, writing: bool) -> Any:
        """Return a zarr store that fetches one chunk after the other."""
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
        """Return the bytes ``[start:end]``; of hosts that answer no ranges the whole file is fetched."""
        if start is None and end is None:
            return self.read_bytes()
        begin = start or 0
        span = f"{begin}" if begin < 0 else f"{begin}-{'' if end is None else end - 1}"
        with ask("GET", self.uri, self._hosts, headers={"Range": f"bytes={span}"}) as reply:
            body = b"".join(bounded(reply.parts, self.allowed.largest_file, str(self)))
        return body if reply.status == 206 else body[start:end]

    def _parts(self) -> Iterator[bytes]:
        limit = self.allowed.largest_file
        with ask("GET", self.uri, self._hosts) as reply:
            if reply.length is not None and reply.length > limit:
                raise too_large(str(self), reply.length, limit)
            yield from bounded(reply.parts, limit, str(self))

    def _read_only(self) -> ForbiddenError:
        return ForbiddenError(f"expected a place that can be written to, got {self}", hint="name a file or s3 URI")

    @property
    def _hosts(self) -> Hosts:
        return Hosts(self.allowed.hosts, self.allowed.private_hosts)


class WebFiles(AsyncFileSystem):  # type: ignore[misc]
    """The files below a web address, as zarr asks for them.

    Parameters
    ----------
    place
        The address that paths are relative to.
    """

    protocol = "cytoray-web"

    def __init__(self, place: WebPlace, **options: Any) -> None:
        super().__init__(**options)
        self.place = place

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        return await asyncio.to_thread(self._below(path).read_range, start, end)

    async def _exists(self, path: str, **options: Any) -> bool:
        return await asyncio.to_thread(self._below(path).exists)

    def _below(self, path: str) -> WebPlace:
        below = self.place.joined(path.strip("/"))
        assert isinstance(below, WebPlace)  # noqa: S101 - joined keeps the kind
        return below
