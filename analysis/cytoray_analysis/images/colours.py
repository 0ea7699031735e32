"""What the stored samples of a picture mean: colour spaces, colour tables, transparency, inverted grey.

Pixels are returned as every viewer shows them, with three exceptions, in which a table is display only and the stored
values are used: label images, files that ImageJ wrote, and tables that are one ramp, from black to a colour.

TIFF 6.0 specification (Adobe, 1992), sections 3, 8, 16, 18, 20, 21 and 23.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import UnreadableImageError
from cytoray_analysis.images.axes import COLOURS

_WHITE_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 2, 3, 5, 6
# Colour spaces of printing and of raw camera data, whose colours depend on a profile.
_UNKNOWN = {
    8: "CIELAB",
    9: "ICC Lab",
    10: "ITU Lab",
    32803: "colour filter array (raw camera data)",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}
# Codecs that convert YCbCr to red, green and blue: JPEG, and JPEG 2000 as slide scanners write it.
_DECODES_YCBCR = frozenset({6, 7, 34892, 33003, 33004, 33005, 34712, 50001})
_ALPHA = frozenset({1, 2})
# Samples of a colour space; further samples are extra.
_BASIC = {_RGB: 3, _PALETTE: 1, _YCBCR: 3}
_GREY_BLOCK = 2**20


@dataclass(frozen=True, eq=False)
class Colours:
    """How stored samples become channels.

    Attributes
    ----------
    space
        ``stored``, ``inverted``, ``table``, ``cmyk`` or ``ycbcr``.
    keep
        Samples that are kept, in order; empty for all.
    names
        Of the resulting channels; None if the samples have no names.
    table
        (entries, 3) colours, or (entries,) grey, for ``table``.
    bits
        Per sample.
    coefficients
        Luma coefficients of red, green and blue, and the reference black and white of Y, Cb and Cr, for ``ycbcr``.
    """

    space: str = "stored"
    keep: tuple[int, ...] = ()
    names: tuple[str, ...] | None = None
    table: NDArray[Any] | None = None
    bits: int = 8
    coefficients: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    @property
    def adds_axis(self) -> bool:
        """Whether the samples have no axis but result in channels; an axis of samples, for transparency, is kept."""
        return self.table is not None and self.table.ndim == 2 and not self.keep


def tiff_colours(page: Any, label: str, *, labels: bool, imagej: bool) -> Colours:
    """Return the meaning of the samples of a TIFF page.

    Parameters
    ----------
    page
        The page from tifffile.
    labels
        Whether it is a label image.
    imagej
        Whether ImageJ wrote the file.

    Raises
    ------
    UnreadableImageError
        The colour space is not supported.
    """
    photometric, bits = int(page.photometric), int(page.bitspersample)
    if photometric in _UNKNOWN:
        raise UnreadableImageError(
            f"{label} is stored in the colour space {_UNKNOWN[photometric]}, which is not supported",
            hint="export it as grey or RGB",
        )
    samples = int(page.samplesperpixel)
    extra = tuple(int(kind) for kind in (page.extrasamples or ()))
    if photometric in _BASIC and not extra:  # samples beyond the colours that the file does not describe
        extra = (0,) * max(0, samples - _BASIC[photometric])
    basic = samples - len(extra)
    kept = tuple(range(basic)) + tuple(basic + number for number, kind in enumerate(extra) if kind not in _ALPHA)
    keep = kept if len(kept) < samples and kept else ()
    rest = tuple(f"channel {index}" for index in range(3, len(kept)))
    if photometric == _RGB and basic == 3:
        return Colours(keep=keep, names=COLOURS + rest, bits=bits)
    # Without the tag, tifffile assumes that white is zero; viewers show black as zero.
    if photometric == _WHITE_IS_ZERO and "PhotometricInterpretation" in page.tags and not (labels or imagej):
        return Colours("inverted", keep, bits=bits)
    if photometric == _PALETTE and kept == (0,) and page.colormap is not None:
        table = np.asarray(page.colormap).reshape(3, -1).T
        if len(table) < 2**bits and not (labels or imagej):
            raise UnreadableImageError(
                f"{label} has a table of {len(table)} colours for samples of {bits} bits",
                hint="the file is damaged; export it again as grey or RGB",
            )
        return replace(table_colours(table, bits, stored=labels or imagej), keep=keep)
    if photometric == _CMYK and basic == 4:
        return Colours("cmyk", keep, COLOURS, bits=bits)
    if photometric == _YCBCR and basic == 3:
        if int(page.compression) in _DECODES_YCBCR:
            return Colours(keep=keep, names=COLOURS, bits=bits)
        if page.is_subsampled or bits != 8:
            raise UnreadableImageError(
                f"{label} is stored in the colour space YCbCr, with fewer colour samples than pixels or {bits} bits",
                hint="export it as RGB",
            )
        return Colours("ycbcr", keep, COLOURS, bits=bits, coefficients=_ycbcr(page))
    return Colours(keep=keep, bits=bits)


def table_colours(table: NDArray[Any], bits: int, *, stored: bool) -> Colours:
    """Return the colours of a palette.

    Parameters
    ----------
    table
        (entries, 3) uint8 or uint16.
    stored
        Whether the table is display only.
    """
    if stored or _is_ramp(table):
        return Colours(bits=bits)
    if table.dtype.itemsize > 1 and (bool((table % 257 == 0).all()) or bool((table % 256 == 0).all())):
        table = (table // 256).astype(np.uint8)
    if bool((table == table[:, :1]).all()):
        return Colours("table", table=np.ascontiguousarray(table[:, 0]), bits=bits)
    return Colours("table", table=np.ascontiguousarray(table), names=COLOURS, bits=bits)


def _is_ramp(table: NDArray[Any]) -> bool:
    """Whether a table is a linear ramp from black to one colour."""
    numbers = table.astype(np.float64)
    steps = np.linspace(0.0, 1.0, len(numbers))[:, None]
    return bool(numbers[-1].max() > 0 and np.abs(numbers - steps * numbers[-1]).max() <= 0.02 * numbers[-1].max())


def _ycbcr(page: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    def values(name: str, default: tuple[float, ...]) -> tuple[float, ...]:
        tag = page.tags.get(name)
        if tag is None or not isinstance(tag.value, tuple):
            return default
        numbers = tuple(float(one) for one in tag.value)
        if len(numbers) == 2 * len(default):  # fractions
            if any(not below for below in numbers[1::2]):
                return default
            numbers = tuple(above / below for above, below in zip(numbers[::2], numbers[1::2], strict=True))
        return numbers if len(numbers) == len(default) else default

    luma = values("YCbCrCoefficients", (0.299, 0.587, 0.114))
    reference = values("ReferenceBlackWhite", (0.0, 255.0, 128.0, 255.0, 128.0, 255.0))
    return luma, reference


def to_channels(pixels: NDArray[Any], colours: Colours, axis: int | None) -> NDArray[Any]:
    """Turn stored samples into channels.

    Parameters
    ----------
    pixels
        As stored.
    axis
        The axis of samples; None without one. A table then adds one at the end.
    """
    if colours.space == "table" and colours.table is not None:
        index = pixels if axis is None else np.take(pixels, 0, axis=axis)
        found = np.asarray(colours.table[np.minimum(index.astype(np.intp, copy=False), len(colours.table) - 1)])
        if axis is None:
            return found
        return np.moveaxis(found, -1, axis) if colours.table.ndim == 2 else np.expand_dims(found, axis)
    if colours.space == "inverted":
        pixels = _inverted(pixels, colours.bits)
    elif colours.space in _CONVERT and axis is not None:
        last = np.moveaxis(pixels, axis, -1)
        return np.asarray(np.moveaxis(_CONVERT[colours.space](last, colours), -1, axis))
    if colours.keep and axis is not None:
        pixels = np.take(pixels, colours.keep, axis=axis)
    return pixels


def _inverted(pixels: NDArray[Any], bits: int) -> NDArray[Any]:
    if pixels.dtype.kind == "b":
        return np.asarray(np.logical_not(pixels))
    if pixels.dtype.kind == "u":
        return np.asarray(pixels.dtype.type(2 ** min(bits, 8 * pixels.dtype.itemsize) - 1) - pixels)
    # White is 1 in floating-point pictures; otherwise any other number would be equally arbitrary.
    return np.asarray(np.invert(pixels) if pixels.dtype.kind == "i" else pixels.dtype.type(1) - pixels)


def _from_cmyk(pixels: NDArray[Any], colours: Colours) -> NDArray[Any]:
    full = float(2**colours.bits - 1) if pixels.dtype.kind == "u" else 1.0
    ink = pixels[..., :4].astype(np.float64) / full
    rgb = (1.0 - ink[..., :3]) * (1.0 - ink[..., 3:]) * full
    return np.asarray(rgb.round() if pixels.dtype.kind == "u" else rgb).astype(pixels.dtype)


def _from_ycbcr(pixels: NDArray[Any], colours: Colours) -> NDArray[Any]:
    red, green, blue = colours.coefficients[0] if colours.coefficients else (0.299, 0.587, 0.114)
    black_white = colours.coefficients[1] if colours.coefficients else (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)
    codes = pixels[..., :3].astype(np.float64)
    low, high = np.array(black_white[::2]), np.array(black_white[1::2])
    full = np.array([255.0, 127.0, 127.0])
    y, cb, cr = np.moveaxis((codes - low) * full / np.where(high == low, 1.0, high - low), -1, 0)
    r = cr * (2 - 2 * red) + y
    b = cb * (2 - 2 * blue) + y
    g = (y - blue * b - red * r) / green
    return np.asarray(np.clip(np.stack([r, g, b], axis=-1).round(), 0, 255).astype(np.uint8))


_CONVERT = {"cmyk": _from_cmyk, "ycbcr": _from_ycbcr}


@dataclass(frozen=True, eq=False)
class ColourView:
    """Stored samples seen as channels; nothing is decoded until it is sliced.

    Parameters
    ----------
    source
        Anything with ``shape``, ``dtype`` and numpy-style slicing.
    colours
        The meaning of the samples.
    axis
        The axis of samples in `source`; None where there is none.
    """

    source: Any
    colours: Colours
    axis: int | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        shape = [int(length) for length in self.source.shape]
        if self.colours.adds_axis:
            return (*shape, 3)
        if self.axis is not None:
            shape[self.axis] = self._channels
        return tuple(shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the channels."""
        table = self.colours.table
        dtype: np.dtype[Any] = np.dtype(self.source.dtype if table is None else table.dtype)
        return dtype

    @property
    def _channels(self) -> int:
        stored = int(self.source.shape[self.axis or 0])
        if self.colours.table is not None:
            return 3 if self.colours.table.ndim == 2 else 1
        if self.colours.space not in ("stored", "inverted"):
            return 3
        return len(self.colours.keep) or stored

    def __getitem__(self, region: tuple[slice, ...]) -> NDArray[Any]:
        """Decode a region, one slice per axis."""
        if self.colours.adds_axis:
            return to_channels(self.source[region[:-1]], self.colours, None)[..., region[-1]]
        if self.axis is None:
            return to_channels(self.source[region], self.colours, None)
        stored = (*region[: self.axis], slice(None), *region[self.axis + 1 :])
        channels = to_channels(self.source[stored], self.colours, self.axis)
        wanted = [slice(None)] * channels.ndim
        wanted[self.axis] = region[self.axis]
        return channels[tuple(wanted)]


def is_grey(pixels: Any, axis: int) -> bool:
    """Whether the three samples of every pixel are equal: grey saved as colour.

    Reads blocks until it finds a colour, so pictures with colours cost one block.

    Parameters
    ----------
    pixels
        Array or view with three entries along `axis`.
    """
    shape: Sequence[int] = tuple(int(length) for length in pixels.shape)
    if shape[axis] != 3:
        return False
    first = next(number for number in range(len(shape)) if number != axis)
    others = max(1, int(np.prod([length for number, length in enumerate(shape) if number != first], dtype=np.int64)))
    step = max(1, _GREY_BLOCK // others)
    starts = range(0, shape[first], step)
    # From the centre outwards: the border of a picture is often blank.
    for start in sorted(starts, key=lambda place: abs(place + step / 2 - shape[first] / 2)):
        region = [slice(None)] * len(shape)
        region[first] = slice(start, min(start + step, shape[first]))
        block = np.moveaxis(np.asarray(pixels[tuple(region)]), axis, 0)
        if not (np.array_equal(block[0], block[1]) and np.array_equal(block[0], block[2])):
            return False
    return True
