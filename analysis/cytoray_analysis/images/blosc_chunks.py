"""Chunks that Blosc has compressed, decoded only where all their bytes are there.

Blosc decodes from memory behind the end of a chunk that was cut short, which gives other pixels and no error. Its
header says how long the chunk is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numcodecs
import numpy as np
import zarr
from zarr.codecs import BloscCodec, ShardingCodec

_HEADER, _LENGTH = 16, slice(12, 16)


class CompleteBlosc(numcodecs.Blosc):  # type: ignore[misc]
    """Blosc of Zarr 2 that refuses what is shorter than its header says."""

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode a chunk."""
        check_complete(buf)
        return super().decode(buf, out)


class CompleteBloscCodec(BloscCodec):
    """Blosc of Zarr 3 that refuses what is shorter than its header says."""

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        check_complete(chunk_bytes.as_numpy_array())
        return await super()._decode_single(chunk_bytes, chunk_spec)


def check_complete(chunk: Any) -> None:
    """Raise where Blosc has compressed to more bytes than there are.

    Raises
    ------
    ValueError
        The chunk was cut short.
    """
    stored = np.frombuffer(chunk, np.uint8)
    said = int.from_bytes(stored[_LENGTH].tobytes(), "little") if len(stored) >= _HEADER else _HEADER
    if len(stored) < said:
        raise ValueError(f"it was cut short: {len(stored)} bytes are there, {said} were written")


def complete(array: Any) -> Any:
    """Return a zarr array that decodes no Blosc chunk that was cut short.

    Parameters
    ----------
    array
        A zarr array of either version of the format.
    """
    metadata = array.metadata
    if metadata.zarr_format == 3:
        changed = replace(metadata, codecs=_checked(metadata.codecs))
    else:
        filters = metadata.filters and tuple(_checked_of_2(one) for one in metadata.filters)
        changed = replace(metadata, compressor=_checked_of_2(metadata.compressor), filters=filters)
    inner = array.async_array
    return zarr.Array(zarr.AsyncArray(metadata=changed, store_path=inner.store_path, config=inner.config))


def _checked(codecs: Any) -> tuple[Any, ...]:
    return tuple(_checked_of_3(one) for one in codecs)


def _checked_of_3(codec: Any) -> Any:
    if isinstance(codec, ShardingCodec):
        return replace(codec, codecs=_checked(codec.codecs), index_codecs=_checked(codec.index_codecs))
    if not isinstance(codec, BloscCodec):
        return codec
    named = ("typesize", "cname", "clevel", "shuffle", "blocksize")
    return CompleteBloscCodec(**{name: getattr(codec, name) for name in named})


def _checked_of_2(codec: Any) -> Any:
    if not isinstance(codec, numcodecs.Blosc):
        return codec
    return CompleteBlosc.from_config({key: value for key, value in codec.get_config().items() if key != "id"})
