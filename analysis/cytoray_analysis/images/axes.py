"""The axes of an image and the names of their entries, in one place.

``T`` time, ``C`` channel, ``Z`` depth, ``Y`` row, ``X`` column: one order, used everywhere. File formats use more
letters: ``S`` (samples of a pixel, such as red, green and blue) becomes ``C``; ``Q`` and ``I`` (planes of unknown
meaning) become the innermost free axes, as in the bioio readers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from cytoray_analysis.errors import AxesError
from cytoray_analysis.selection import LARGEST_PIXEL, SMALLEST_PIXEL

AXES = "TCZYX"
SPATIAL_AXES = "ZYX"
COLOURS = ("red", "green", "blue")

_OPTIONS = {
    "Z": "--plane N, --plane max, --plane each or --plane stitch",
    "T": "--frame N or --frame each",
    "C": "--channel NAME",
}

_MICROMETRES: dict[str, float] = {
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-6),
    **dict.fromkeys(("Å", "angstrom"), 1e-4),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("\u00b5m", "\u03bcm", "um", "micron", "microns", "micrometer", "micrometre"), 1.0),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("in", "inch"), 25_400.0),
}
_GENERATED_NAME = re.compile(r"^Channel:\d+(:\d+)?$")


def check_axes(axes: str) -> None:
    """Raise :class:`AxesError` unless `axes` is an ordered part of ``TCZYX`` that holds ``Y`` and ``X``."""
    ordered = "".join(letter for letter in AXES if letter in axes)
    if axes != ordered or "Y" not in axes or "X" not in axes:
        raise AxesError(
            f"expected axes as letters of {AXES!r} in that order with at least 'YX', got {axes!r}",
            hint="reorder the array, for example with numpy.transpose, or name its axes correctly",
        )


def resolve_axes(letters: str, shape: Sequence[int], source: str) -> str:
    """Name the planes of unknown meaning in the axes that a file declares.

    Parameters
    ----------
    letters
        The file's own axes, outermost first, such as ``"QYX"`` or ``"YXS"``.
    shape
        The length of each axis.
    source
        The image's name, for the message.

    Returns
    -------
    str
        The same axes without unknown letters. Unknown axes of length one are kept; the code that arranges the pixels
        drops them.

    Raises
    ------
    AxesError
        When more axes are longer than one than ``TCZYX`` can name.
    """
    letters = letters.upper()
    unknown = [place for place, letter in enumerate(letters) if letter in "QI"]
    free = [letter for letter in "TCZ" if letter not in letters and not (letter == "C" and "S" in letters)]
    resolved = list(letters)
    for place in reversed(unknown):
        resolved[place] = free.pop() if free else "?"
    known = set(AXES + "S")
    surplus = [
        f"{letter}={length}"
        for letter, length in zip(resolved, shape, strict=True)
        if (letter not in known or resolved.count(letter) > 1) and length != 1
    ]
    if surplus or "Y" not in resolved or "X" not in resolved:
        raise AxesError(
            f"{source}: expected at most the axes {AXES}, got {letters} of shape {tuple(shape)}"
            + (f" with {', '.join(surplus)} too many." if surplus else "."),
            hint="save one image per file, or save it as OME-TIFF or OME-Zarr with its axes named",
        )
    return "".join(resolved)


def channel_names(names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """Return one name per channel.

    Parameters
    ----------
    names
        The names in the file, if any; names invented by a reader (``Channel:0:1``) and empty ones are ignored.
    count
        Number of channels.

    Returns
    -------
    tuple of str
        The given names if every channel has one, possibly empty; else ``grey`` for a single channel, and ``channel 0,
        channel 1, …`` otherwise.
    """
    given = list(names or ())
    default = ("grey",) if count == 1 else tuple(f"channel {index}" for index in range(count))
    if len(given) != count:
        return default
    return tuple(
        fallback if not name or _GENERATED_NAME.match(name) else str(name)
        for name, fallback in zip(given, default, strict=True)
    )


def how_to_choose(axes: str) -> str:
    """Return which options choose one entry of each of these axes, for an error's hint."""
    return " and ".join(_OPTIONS[axis] for axis in axes if axis in _OPTIONS)


def micrometres(value: float | None, unit: str | None) -> float | None:
    """Convert a length to micrometres; ``None`` if the unit is unknown or the length is not valid for a pixel."""
    if value is None or unit is None:
        return None
    plain = unit.strip()
    factor = _MICROMETRES.get(plain) or _MICROMETRES.get(plain.lower())
    return None if factor is None or not SMALLEST_PIXEL <= value * factor <= LARGEST_PIXEL else value * factor


def known_pixel_size(sizes: Mapping[str, float | None], axes: str) -> dict[str, float] | None:
    """Keep the known sizes of the spatial axes; ``None`` unless both ``Y`` and ``X`` are known."""
    known = {axis: float(size) for axis in SPATIAL_AXES if axis in axes and (size := sizes.get(axis)) is not None}
    return known if "Y" in known and "X" in known else None
