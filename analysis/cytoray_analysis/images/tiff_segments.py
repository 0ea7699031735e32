"""Strips and tiles of untrusted TIFF files whose codec declares the decoded size in its own header."""

from __future__ import annotations

import io
import math
import re
import struct

from cytoray_analysis.errors import UnreadableImageError
from cytoray_analysis.images.picture import jpeg_header, too_many_scans

JPEG_CODECS = frozenset({7})
JPEG_2000_CODECS = frozenset({33003, 33004, 33005, 34712})
_SIZE = b"\xff\x4f\xff\x51"  # start of a JPEG 2000 codestream, and the marker of its size
_SMALLEST = 2**16


def check_segment(segment: bytes, codec: int, samples: int, label: str) -> None:
    """Compare the size in the header of a JPEG or JPEG 2000 strip or tile with what the file declares.

    Parameters
    ----------
    segment
        Its bytes.
    codec
        The compression of its page.
    samples
        How many the file declares in each.
    label
        The image's name, for messages.

    Raises
    ------
    UnreadableImageError
        It is much larger.
    """
    shape: tuple[int, ...]
    if codec in JPEG_CODECS:
        shape, dense = jpeg_header(io.BytesIO(segment)).shape, too_many_scans(segment)
        count = math.prod(shape[:2])
    else:
        shape, dense = _jpeg_2000_shape(segment), False
        count = math.prod(shape)
    if count > 4 * max(samples, _SMALLEST) or dense:
        size = " \u00d7 ".join(map(str, shape))
        raise UnreadableImageError(
            f"{label}: a JPEG strip or tile of {size} is larger than the image",
            field="bytes",
            hint="the file is damaged; copy or export it again",
        )


def _jpeg_2000_shape(segment: bytes) -> tuple[int, ...]:
    """Return rows, columns and samples of a JPEG 2000 codestream; of one in boxes the largest that there can be."""
    places = [0] if segment.startswith(_SIZE) else [found.start() for found in re.finditer(re.escape(_SIZE), segment)]
    if not places:
        raise ValueError("a JPEG 2000 strip or tile has no size")
    shapes = []
    for place in places:
        right, lower, left, upper = struct.unpack_from(">4I", segment, place + 8)
        (samples,) = struct.unpack_from(">H", segment, place + 40)
        shapes.append((lower - upper, right - left, samples))
    return max(shapes, key=math.prod)
