"""Chunks of OME-Zarr, decoded to no more bytes than the metadata of their array declare, and only if complete.

The decoded size of a chunk is in the chunk itself: a few kilobytes may decode to gigabytes. A valid chunk never decodes
to more than its pixels, so the limit applies to all images.
"""

from __future__ import annotations

import asyncio
import bz2
import gzip
import lzma
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BufferedIOBase, BytesIO
from typing import Any

import imagecodecs
import numcodecs
import numpy as np
import zarr
from numcodecs.abc import Codec
from numcodecs.compat import ensure_bytes
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, TransposeCodec
from zarr.core.buffer.cpu import as_numpy_array_wrapper

from cytoray_analysis.errors import UnreadableImageError

# A nested codec adds its headers and tables, a shard its index.
_LARGER, _SLACK = 2, 2**16
_BLOSC_HEADER = 16
_NUMBERS = "biufc"


def _read_from(file: BufferedIOBase, most: int) -> bytes:
    with file:
        return file.read(most + 1)


def _of_zlib(packed: bytes, most: int) -> bytes:
    stream = zlib.decompressobj()
    unfolded = stream.decompress(packed, most + 1)
    if len(unfolded) <= most and not stream.eof:
        raise ValueError("it is truncated: the stream has no end")
    return unfolded


def _of_lzma(codec: Codec, packed: bytes, most: int) -> bytes:
    with lzma.LZMAFile(BytesIO(packed), format=codec.format, filters=codec.filters) as file:
        return file.read(most + 1)


def _of_blosc(packed: bytes, most: int) -> Any:
    # Blosc reads beyond the end of a truncated chunk, which gives wrong pixels and no error.
    said = int.from_bytes(packed[12:16], "little") if len(packed) >= _BLOSC_HEADER else _BLOSC_HEADER
    if len(packed) < said:
        raise ValueError(f"it is truncated: {len(packed)} of {said} bytes are present")
    _check_size(int.from_bytes(packed[4:8], "little"), most)
    return numcodecs.Blosc().decode(packed)


def _of_lz4(packed: bytes, most: int) -> Any:
    _check_size(int.from_bytes(packed[:4], "little"), most)
    return numcodecs.LZ4().decode(packed)


# Decodes the bytes of a chunk to not many more than are allowed.
_UNFOLD: dict[str, Callable[[Codec, bytes, int], Any]] = {
    "blosc": lambda codec, packed, most: _of_blosc(packed, most),
    "bz2": lambda codec, packed, most: _read_from(bz2.BZ2File(BytesIO(packed)), most),
    "gzip": lambda codec, packed, most: _read_from(gzip.GzipFile(fileobj=BytesIO(packed)), most),
    "lz4": lambda codec, packed, most: _of_lz4(packed, most),
    "lzma": _of_lzma,
    "zlib": lambda codec, packed, most: _of_zlib(packed, most),
    "zstd": lambda codec, packed, most: imagecodecs.zstd_decode(packed, out=most + 1),
}

# What each makes of a number: another number, of the types that its configuration names.
_CASTS = {
    "astype": ("encode_dtype", "decode_dtype"),
    "delta": ("astype", "dtype"),
    "fixedscaleoffset": ("astype", "dtype"),
    "quantize": ("astype", "dtype"),
}
_STEADY = frozenset({"adler32", "bitround", "crc32", "crc32c", "fletcher32", "jenkins_lookup3", "shuffle"})
_BITS = "packbits"
_KNOWN = frozenset({*_UNFOLD, *_CASTS, *_STEADY, _BITS})


def bounded(array: Any, label: str, *, alone: bool = False) -> Any:
    """Return a zarr array whose chunks decode to no more bytes than the metadata of the array declare.

    Parameters
    ----------
    array
        A zarr array of either version of the format.
    label
        The image's name, for messages.
    alone
        Whether it is untrusted: codecs with unknown decoded size are then refused.

    Raises
    ------
    UnreadableImageError
        It is untrusted and has such a codec.
    """
    metadata = array.metadata
    if metadata.zarr_format == 3:
        changed = replace(metadata, codecs=tuple(_bounded_of_3(one, label, alone) for one in metadata.codecs))
    else:
        codecs = [one for one in (*(metadata.filters or ()), metadata.compressor) if one is not None]
        pixels = np.dtype(array.dtype).itemsize
        widest = max([pixels, *(dtype.itemsize for one in codecs for dtype in _types_of(one))])
        most = _most(math.prod(array.chunks) * widest)
        filters = metadata.filters and tuple(_bounded_of_2(one, most, label, alone) for one in metadata.filters)
        compressor = metadata.compressor and _bounded_of_2(metadata.compressor, most, label, alone)
        changed = replace(metadata, compressor=compressor, filters=filters)
    inner = array.async_array
    return zarr.Array(zarr.AsyncArray(metadata=changed, store_path=inner.store_path, config=inner.config))


class _Bounded2(Codec):  # type: ignore[misc]
    """A codec of Zarr 2 with a limit of decoded bytes."""

    codec_id = "bounded"

    def __init__(self, codec: Codec, most: int) -> None:
        self.codec, self.most = codec, most

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode a chunk."""
        return _decoded(self.codec, buf, self.most)

    def encode(self, buf: Any) -> Any:
        """Encode a chunk."""
        return self.codec.encode(buf)

    def get_config(self) -> Any:
        """Return the name of the codec in metadata."""
        return self.codec.get_config()


@dataclass(frozen=True)
class _Bounded3(BytesBytesCodec):
    """A codec of Zarr 3 with a limit of decoded bytes, the size of its pixels; read only."""

    codec: Codec
    said: Any
    is_fixed_size = False

    def to_dict(self) -> Any:
        """Return the name of the codec in metadata."""
        return self.said

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        """Raise, as zarr requires for codecs with variable output size."""
        raise NotImplementedError

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        most = _most(math.prod(chunk_spec.shape) * chunk_spec.dtype.to_native_dtype().itemsize)

        def decode(packed: Any) -> Any:
            return _decoded(self.codec, packed, most)

        return await asyncio.to_thread(as_numpy_array_wrapper, decode, chunk_bytes, chunk_spec.prototype)


def _bounded_of_2(codec: Codec, most: int, label: str, alone: bool) -> Codec:
    if codec.codec_id in _KNOWN:
        return _Bounded2(codec, most)
    if alone:
        raise _unknown(codec.codec_id, label)
    return codec


def _bounded_of_3(codec: Any, label: str, alone: bool) -> Any:
    if isinstance(codec, ShardingCodec):
        chunks, index = (
            tuple(_bounded_of_3(one, label, alone) for one in inner) for inner in (codec.codecs, codec.index_codecs)
        )
        return replace(codec, codecs=chunks, index_codecs=index)
    if isinstance(codec, BytesCodec | Crc32cCodec | TransposeCodec):  # as many bytes as before, by their nature
        return codec
    said = codec.to_dict()
    name = str(said["name"]).removeprefix("numcodecs.")
    if name not in _KNOWN:
        if alone:
            raise _unknown(said["name"], label)
        return codec
    of_2 = numcodecs.get_codec(getattr(codec, "codec_config", None) or {"id": name})
    if isinstance(codec, BytesBytesCodec):
        return _Bounded3(of_2, said)
    _types_of(of_2)  # zarr ensures that the number of values does not change
    return codec


def _decoded(codec: Codec, packed: Any, most: int) -> Any:
    unfold = _UNFOLD.get(codec.codec_id)
    if unfold is None:
        _check_size(math.ceil(memoryview(packed).nbytes * _growth(codec)), most)
        return codec.decode(packed)
    unfolded = unfold(codec, ensure_bytes(packed), most)
    _check_size(len(unfolded), most)
    return unfolded


def _growth(codec: Codec) -> float:
    """Return the number of output bytes of a filter per input byte."""
    types = _types_of(codec)
    return types[1].itemsize / types[0].itemsize if types else 8 if codec.codec_id == _BITS else 1


def _types_of(codec: Codec) -> tuple[np.dtype[Any], ...]:
    """Return the types of numbers that a filter casts from and to; none of other codecs."""
    config = codec.get_config()
    types = tuple(np.dtype(config[name]) for name in _CASTS.get(codec.codec_id, ()))
    strange = [dtype for dtype in types if dtype.kind not in _NUMBERS]
    if strange:
        raise ValueError(f"expected filters of numbers, got {codec.codec_id} with {str(strange[0])[:40]}")
    return types


def _most(declared: int) -> int:
    return _LARGER * declared + _SLACK


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise ValueError(f"it decodes to {size} bytes or more, far more than its pixels need")


def _unknown(name: object, label: str) -> UnreadableImageError:
    return UnreadableImageError(
        f"{label} is compressed with {str(name)[:40]}, whose decoded size cannot be limited",
        hint="use Blosc, Zstandard, gzip or LZ4, or send it as a zipped OME-Zarr",
    )
