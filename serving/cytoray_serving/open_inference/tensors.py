"""Tensors of the Open Inference Protocol: datatypes, shapes, raw bytes and lists of values."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import RequestError

_TYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
_DATATYPES = {dtype: name for name, dtype in _TYPES.items()}
DATATYPES = (*_TYPES, "BF16", "BYTES")
MOST_AXES = 8
_MOST_VALUES = 2**48
_MOST_STRINGS = 2**20  # each is a Python object, however short
_LENGTH = struct.Struct("<I")
# Python types of the values of a list, by the kind of the datatype.
_VALUES: dict[str, set[type]] = {"b": {bool}, "u": {int}, "i": {int}, "f": {int, float}, "O": {str, bytes}}


@dataclass(frozen=True, eq=False)
class Tensor:
    """A named array.

    Attributes
    ----------
    name
        Such as ``image``.
    datatype
        Such as ``UINT8``; BF16 is stored as float32.
    values
        The array; for ``BYTES`` an array of bytes objects.
    parameters
        Parameters of the tensor.
    """

    name: str
    datatype: str
    values: NDArray[Any]
    parameters: dict[str, Any]


def tensor_of_array(name: str, values: NDArray[Any]) -> Tensor:
    """Return a tensor for an array, with the datatype of its type; objects are ``BYTES``."""
    datatype = "BYTES" if values.dtype == object else _DATATYPES[values.dtype]
    return Tensor(name, datatype, values, {})


def check_shape(name: str, datatype: str, shape: Sequence[int]) -> int:
    """Return the number of values of a tensor.

    Raises
    ------
    RequestError
        No such datatype, a negative length, or too many axes or values.
    """
    if datatype not in DATATYPES:
        raise RequestError(
            f"expected one of the datatypes {', '.join(DATATYPES)}, got {datatype!r}", field=f"{name}.datatype"
        )
    # With a length of 0 the other lengths do not matter, but arrays cannot have them either.
    if len(shape) > MOST_AXES or min(shape, default=0) < 0 or math.prod(filter(None, shape)) > _MOST_VALUES:
        raise RequestError(
            f"expected at most {MOST_AXES} lengths of 0 or more with a product of at most {_MOST_VALUES}, "
            f"got {list(shape)[: MOST_AXES + 1]}",
            field=f"{name}.shape",
        )
    count = math.prod(shape)
    if datatype == "BYTES" and count > _MOST_STRINGS:
        raise RequestError(f"expected at most {_MOST_STRINGS} byte strings, got {count}", field=f"{name}.shape")
    return count


def array_of_raw(name: str, datatype: str, shape: Sequence[int], raw: bytes | memoryview) -> NDArray[Any]:
    """Read values from bytes: row by row, little-endian; each byte string follows its length in four bytes.

    Parameters
    ----------
    name
        Name of the tensor, for messages.
    raw
        Bytes of all values. Numbers are not copied.

    Raises
    ------
    RequestError
        The shape or the datatype is invalid, or does not match the number of bytes.
    """
    count = check_shape(name, datatype, shape)
    if datatype == "BYTES":
        return _objects(_strings_of_raw(name, count, raw), shape)
    dtype = np.dtype("<u2") if datatype == "BF16" else _TYPES[datatype]
    if len(raw) != count * dtype.itemsize:
        raise RequestError(
            f"expected {count * dtype.itemsize} bytes for {datatype} of shape {list(shape)}, got {len(raw)}",
            field=name,
            hint="send only the values, row by row",
        )
    values = np.frombuffer(raw, dtype)
    if datatype == "BF16":  # the upper half of a float32
        wide = values.astype("<u4")
        wide <<= 16
        values = wide.view("<f4")
    elif datatype == "BOOL" and (values.view(np.uint8) > 1).any():
        raise RequestError("expected bytes of 0 or 1 for BOOL", field=name)
    return values.reshape(tuple(shape))


def array_of_list(name: str, datatype: str, shape: Sequence[int], values: Sequence[Any]) -> NDArray[Any]:
    """Read values from a flat or nested list; parameters and errors as for :func:`array_of_raw`."""
    count = check_shape(name, datatype, shape)
    if datatype in ("FP16", "BF16"):
        raise RequestError(
            f"expected {datatype} as raw bytes, got a list",
            field=f"{name}.data",
            hint="the protocol has no lists of such values",
        )
    flat = values
    for _ in range(MOST_AXES):
        if not flat or not isinstance(flat[0], list):
            break
        if set(map(type, flat)) != {list}:
            raise RequestError("expected evenly nested lists, got uneven ones", field=f"{name}.data")
        flat = list(chain.from_iterable(flat))
    dtype = np.dtype(object) if datatype == "BYTES" else _TYPES[datatype]
    if len(flat) != count or not set(map(type, flat)) <= _VALUES[dtype.kind]:
        raise RequestError(
            f"expected {count} values of {datatype} for the shape {list(shape)}, got {len(flat)} or other types",
            field=f"{name}.data",
        )
    if datatype == "BYTES":
        return _objects([value.encode() if isinstance(value, str) else value for value in flat], shape)
    try:
        return np.fromiter(flat, dtype, count).reshape(tuple(shape))
    except (OverflowError, ValueError) as error:
        raise RequestError(f"expected values that {datatype} can hold: {error}", field=f"{name}.data") from error


def raw_of_array(values: NDArray[Any]) -> bytes | memoryview:
    """Write values for :func:`array_of_raw`; large answers would need twice the memory if numbers were copied."""
    if values.dtype == object:
        return b"".join(part for value in values.flat for part in (_LENGTH.pack(len(value)), value))
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data


def _strings_of_raw(name: str, count: int, raw: bytes | memoryview) -> list[bytes]:
    strings = []
    place = 0
    for _ in range(count):
        length = _LENGTH.unpack_from(raw, place)[0] if place + _LENGTH.size <= len(raw) else len(raw)
        begin, place = place + _LENGTH.size, place + _LENGTH.size + length
        if place > len(raw):
            break
        strings.append(bytes(raw[begin:place]))
    if len(strings) != count or place != len(raw):
        raise RequestError(
            f"expected {count} byte strings, each after its length in four bytes, in exactly {len(raw)} bytes",
            field=name,
            hint="lengths are little-endian; tritonclient encodes an array of objects in this way",
        )
    return strings


def _objects(strings: list[bytes], shape: Sequence[int]) -> NDArray[Any]:
    values = np.empty(len(strings), object)
    values[:] = strings
    return values.reshape(tuple(shape))
