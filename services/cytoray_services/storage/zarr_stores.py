"""Zarr stores with a size limit per object, which follow no link out of the allowed folders."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.storage import LocalStore, WrapperStore

from cytoray_services.storage.bounds import check_size
from cytoray_services.storage.inside import Inside, require_inside

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype


class BoundedStore(WrapperStore[Store]):
    """A zarr store with a size limit per object.

    Parameters
    ----------
    store
        The store.
    source
        Its name in messages.
    largest
        Maximum bytes of one object.
    """

    def __init__(self, store: Store, source: str, largest: int) -> None:
        super().__init__(store)
        self._source, self._largest = source, largest

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Read the value of a key."""
        try:
            asked = await self._asked(key, byte_range)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        check_size(f"{self._source}/{key}", asked, self._largest)
        if byte_range is None and asked:  # an object that has grown meanwhile is read only up to this size
            byte_range = RangeByteRequest(0, asked)
        return await self._store.get(key, prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Read parts of the values of keys."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        for request in requests:
            yield request[0], await self.get(*request)

    async def _asked(self, key: str, byte_range: ByteRequest | None) -> int:
        """Return the size of a request in bytes."""
        if isinstance(byte_range, RangeByteRequest):
            return byte_range.end - byte_range.start
        if isinstance(byte_range, SuffixByteRequest):
            return byte_range.suffix
        size = await self._store.getsize(key)
        return size - byte_range.offset if isinstance(byte_range, OffsetByteRequest) else size

    def _with_store(self, store: Any) -> Self:
        return type(self)(store, self._source, self._largest)


class InsideStore(LocalStore):
    """The zarr store of a folder, which follows no link out of the allowed folders.

    Parameters
    ----------
    root
        The folder.
    inside
        The allowed folders.
    """

    def __init__(self, root: Path | str, *, inside: Inside, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self._inside = inside

    def with_read_only(self, read_only: bool = False) -> Self:
        """Return a store of the same folder, writable or read-only."""
        return type(self)(self.root, inside=self._inside, read_only=read_only)

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read the value of a key."""
        self._require(key)
        return await super().get(key, prototype, byte_range)

    def get_sync(self, key: str, **options: Any) -> Buffer | None:
        """Read the value of a key."""
        self._require(key)
        return super().get_sync(key, **options)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Read parts of the values of keys."""
        wanted = list(key_ranges)
        for key, _ in wanted:
            self._require(key)
        return await super().get_partial_values(prototype, wanted)

    async def getsize(self, key: str) -> int:
        """Return the size of the value of a key."""
        self._require(key)
        return await super().getsize(key)

    async def exists(self, key: str) -> bool:
        """Whether a key exists."""
        self._require(key)
        return await super().exists(key)

    async def _set(self, key: str, value: Buffer, exclusive: bool = False) -> None:
        self._require(key)
        await super()._set(key, value, exclusive)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Write the value of a key."""
        self._require(key)
        super().set_sync(key, value)

    def _require(self, key: str) -> None:
        require_inside(self.root / key, self._inside)
