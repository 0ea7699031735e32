"""Checks a gRPC message before it is parsed: as objects, data outside raw tensors take up to 100 times the memory."""

from __future__ import annotations

from cytoray_analysis.errors import ImageTooLargeError, RequestError
from cytoray_serving.open_inference.messages import LARGEST_JSON

_MOST_FIELDS = 256  # of the message itself: inputs, outputs and the like
_RAW_INPUT_CONTENTS = 7
_VARINT, _EIGHT_BYTES, _DELIMITED, _FOUR_BYTES = 0, 1, 2, 5  # kinds of fields; groups, which nest, are not used
_LONGEST_VARINT = 10


def beside_tensors(message: bytes) -> int:
    """Return the number of bytes of a ``ModelInferRequest`` outside raw tensors.

    Raises
    ------
    ImageTooLargeError
        There are too many of them.
    RequestError
        The message has too many fields or is malformed.
    """
    place = fields = raw = 0
    while place < len(message):
        tag, place = _number(message, place)
        kind, size = tag & 7, 0
        if kind == _VARINT:
            _, place = _number(message, place)
        elif kind == _DELIMITED:
            size, place = _number(message, place)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            size = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise _malformed(f"a field of kind {kind}")
        place += size
        if place > len(message):
            raise _malformed("a truncated one")
        fields += 1
        if fields > _MOST_FIELDS:
            raise _malformed(f"more than {_MOST_FIELDS} inputs, outputs and other fields")
        raw += size if tag >> 3 == _RAW_INPUT_CONTENTS else 0
    beside = len(message) - raw
    if beside > LARGEST_JSON:
        raise ImageTooLargeError(
            f"expected at most {LARGEST_JSON} bytes outside raw_input_contents, got {beside}",
            field="inputs",
            hint="send tensors as raw_input_contents (set_data_from_numpy of tritonclient does)",
        )
    return beside


def _number(message: bytes, place: int) -> tuple[int, int]:
    """Return the number at a position, seven bits per byte, and the position after it."""
    number = 0
    for shift, byte in enumerate(message[place : place + _LONGEST_VARINT]):
        number |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return number, place + shift + 1
    raise _malformed("a truncated one")


def _malformed(got: str) -> RequestError:
    return RequestError(f"expected the message of an inference request, got {got}", field="message")
