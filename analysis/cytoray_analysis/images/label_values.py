"""Valid values of a label image, for any pixel type, and valid compression."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import ImageError
from cytoray_analysis.images.damage import DAMAGE
from cytoray_analysis.images.image import decode_region
from cytoray_analysis.images.tiff_directories import TIFF_STARTS

LARGEST_LABEL = 2**53
"""Larger whole numbers are not exact in float64."""
MOST_OBJECTS = int(np.iinfo(np.uint16).max)
"""Objects of an image that 16 bits can number."""

_JPEG = b"\xff\xd8"
_LOSSLESS_FRAMES = (0xC3, 0xC7, 0xCB, 0xCF)  # lossless JPEG frame types
_TIFF_JPEG = (6, 7, 33007, 34892)


def as_labels(values: NDArray[Any], source: str) -> NDArray[np.integer[Any]]:
    """Return the numbers of a label image as integers; real numbers are accepted if all are whole.

    Raises
    ------
    ImageError
        A number is not whole, negative, or above :data:`LARGEST_LABEL`.
    """
    if values.dtype.kind == "b":
        return values.astype(np.uint16)
    if values.dtype.kind == "f":
        # Beyond its mantissa every real number is whole, and also represents its neighbours.
        exact = min(2 ** (np.finfo(values.dtype).nmant + 1), LARGEST_LABEL)
        if not (np.isfinite(values).all() and (values == np.floor(values)).all()):
            odd = values[~(values == np.floor(values)) | ~np.isfinite(values)][0]
            raise ImageError(
                f"{source}: expected whole numbers in a label image, got {odd:g} ({values.dtype})",
                field="labels",
                hint="a probability map is not a label image: threshold it and number the objects",
            )
        if values.max(initial=0) > exact:
            raise ImageError(
                f"{source}: expected labels up to {exact} in {values.dtype}, which is exact only up to there, got "
                f"{values.max():.0f}",
                field="labels",
                hint="store the labels as integers",
            )
        values = values.astype(np.int64 if values.max(initial=0) > np.iinfo(np.int32).max else np.int32)
    elif values.dtype.kind not in "iu":
        raise ImageError(f"{source}: expected whole numbers in a label image, got {values.dtype}", field="labels")
    lowest, highest = int(values.min(initial=0)), int(values.max(initial=0))
    if lowest < 0:
        raise ImageError(
            f"{source}: expected labels of at least 0, got {lowest}",
            field="labels",
            hint="use 0 for background, and a separate mask for pixels to ignore",
        )
    if highest > LARGEST_LABEL:
        raise ImageError(
            f"{source}: expected labels of at most 2^53 = {LARGEST_LABEL}, got {highest}",
            field="labels",
            hint="renumber the objects from 1",
        )
    return values


@dataclass(frozen=True, eq=False)
class WholeNumbers:
    """A lazily read array of labels, checked and made integers region by region; see :func:`as_labels`.

    Parameters
    ----------
    source
        Anything with ``shape``, ``dtype`` and numpy-style slicing.
    name
        For messages.
    """

    source: Any
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return tuple(int(length) for length in self.source.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Integer type of the labels, wide enough for all."""
        stored = np.dtype(self.source.dtype)
        return stored if stored.kind in "iu" else np.dtype(np.int64)

    def __getitem__(self, region: Any) -> NDArray[Any]:
        """Decode a region."""
        return as_labels(decode_region(self.source, region), self.name)


def lossy_codec(start: Path | bytes) -> str | None:
    """Return the name of the lossy codec of a file; None if its codec is not always lossy.

    Parameters
    ----------
    start
        A file, or its bytes. JPEG files, and TIFF files with JPEG, WebP or JPEG 2000 inside are examined.
    """
    if isinstance(start, Path):
        if not start.is_file():
            return None
        with start.open("rb") as file:
            first = file.read(4)
        if not first.startswith((_JPEG, *TIFF_STARTS)):
            return None
        if first.startswith(_JPEG):
            return "JPEG" if _is_lossy(start.read_bytes()) else None
    elif start.startswith(_JPEG):
        return "JPEG" if _is_lossy(start) else None
    elif not start.startswith(TIFF_STARTS):
        return None
    return _codec_of_tiff(start)


def refuse_lossy(start: Path | bytes, source: str) -> None:
    """Raise for a label image with a lossy codec.

    Raises
    ------
    ImageError
        It is JPEG, or contains JPEG, lossy WebP or lossy JPEG 2000.
    """
    codec = lossy_codec(start)
    if codec is not None:
        raise ImageError(
            f"{source}: expected a label image with lossless compression, got {codec}, which changes the labels",
            field="labels",
            hint="export it again as PNG, or as TIFF without JPEG compression",
        )


def _codec_of_tiff(start: Path | bytes) -> str | None:
    import io

    import tifffile

    # The reader, which is also called, reports why the file cannot be read.
    try:
        with tifffile.TiffFile(io.BytesIO(start) if isinstance(start, bytes) else start) as file:
            page = file.pages[0]
            codec, offsets, lengths = int(page.compression), page.dataoffsets, page.databytecounts
            segments = [(at, count) for at, count in zip(offsets, lengths, strict=False) if count]
            if not segments:
                return None
            file.filehandle.seek(segments[0][0])
            segment = file.filehandle.read(min(segments[0][1], 2**20))
    except DAMAGE:
        return None
    if codec in _TIFF_JPEG:
        return "JPEG" if _is_lossy(segment) else None
    if segment[:4] == b"RIFF" and segment[8:12] == b"WEBP" and b"VP8 " in segment[12:128]:
        return "lossy WebP"
    return "lossy JPEG 2000" if _is_irreversible(segment) else None


def _is_lossy(stream: bytes) -> bool:
    """Whether a JPEG stream has a lossy frame; a stream that cannot be parsed counts as lossy."""
    at = 2
    while at + 4 <= len(stream):
        if stream[at] != 0xFF:
            return True
        kind = stream[at + 1]
        if kind == 0xFF:  # a byte that fills
            at += 1
            continue
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            return kind not in _LOSSLESS_FRAMES
        if kind == 0xDA:
            return True
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return True


def _is_irreversible(stream: bytes) -> bool:
    """Whether a JPEG 2000 stream uses the lossy wavelet."""
    at = stream.find(b"\xff\x4f\xff\x51")  # start of codestream, then its size
    if at < 0:
        return False
    coding = stream.find(b"\xff\x52", at)
    # Marker, length, style, progression, layers, component transform, levels, code block, its style, wavelet.
    place = coding + 13
    return coding >= 0 and place < len(stream) and stream[place] == 0
