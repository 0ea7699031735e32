"""From a stored array to an image: known axes in the one order, samples as channels, no axes of length one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cytoray_analysis.answer_warnings import Warnings
from cytoray_analysis.errors import AxesError, UnreadableImageError
from cytoray_analysis.images.axes import AXES, channel_names, known_pixel_size, resolve_axes
from cytoray_analysis.images.colours import Colours, ColourView, is_grey
from cytoray_analysis.images.damage import reading
from cytoray_analysis.images.image import AxisView, Image, image_from_array

# Pictures up to this many bytes are kept in memory if all their pixels had to be read.
_KEPT_BYTES = 2**26


def arrange_samples(
    pixels: Any,
    letters: str,
    colours: Colours,
    names: Sequence[str] | None,
    pixel_size: Mapping[str, float | None],
    label: str,
    warnings: Warnings,
) -> Image:
    """Arrange stored samples as an image, in colours or, if all three are equal, as grey."""
    axis = letters.index("S") if "S" in letters else None
    view: Any = pixels
    if colours.space != "stored" or colours.keep:
        view = ColourView(pixels, colours, axis)
        letters += "S" if colours.adds_axis else ""
    colour = colours.names is not None and "S" in letters
    grey = False
    if colour and int(view.shape[letters.index("S")]) == 3:
        with reading(label):
            view, rest = _grey(view, letters, letters.index("S"))
        grey, letters = rest != letters, rest
    if isinstance(pixels, np.ndarray) and not isinstance(view, np.ndarray | AxisView):
        view = view[(slice(None),) * len(view.shape)]
    names = colours.names if colour and not grey else names
    image = arrange(view, letters, names, pixel_size, label, warnings=warnings)
    return replace(image, equal_samples=grey)


def _grey(view: Any, letters: str, axis: int) -> tuple[Any, str]:
    """Return only the first sample if all three are equal everywhere."""
    whole = (slice(None),) * len(view.shape)
    if not isinstance(view, np.ndarray) and np.prod(view.shape, dtype=float) * view.dtype.itemsize <= _KEPT_BYTES:
        try:
            view = view[whole]
        except UnreadableImageError:  # a plane is missing; the error is raised when it is read
            return view, letters
    if not is_grey(view, axis):
        return view, letters
    rest = letters.replace("S", "")
    if isinstance(view, np.ndarray):
        return np.moveaxis(view, axis, 0)[0], rest
    keep = tuple(0 if index == axis else slice(None) for index in range(len(letters)))
    return AxisView(view, keep, tuple(index for index in range(len(letters)) if index != axis)), rest


def arrange(
    pixels: Any,
    letters: str,
    names: Sequence[str] | None,
    pixel_size: Mapping[str, float | None],
    label: str,
    *,
    warnings: Warnings = (),
) -> Image:
    """Arrange a stored array as an image: known axes in the one order, samples as channels, no axes of length one."""
    shape = tuple(int(length) for length in pixels.shape)
    letters = resolve_axes(letters, shape, label)
    sizes = dict(zip(letters, shape, strict=True))
    colour = sizes.get("S", 1) > 1
    if colour and sizes.get("C", 1) > 1:
        raise AxesError(
            f"{label} has {sizes['C']} channels of {sizes['S']} samples each; expected one or the other",
            hint="save each channel as grey",
        )
    channel_letter = "S" if colour else "C"
    samples = sizes.get(channel_letter, 1)
    stored = {
        axis: letters.index(channel_letter if axis == "C" else axis) for axis in AXES if _kept(axis, sizes, samples)
    }
    keep = tuple(slice(None) if axis in stored.values() else 0 for axis in range(len(shape)))
    axes = "".join(stored)
    if keep == (slice(None),) * len(shape) and list(stored.values()) == sorted(stored.values()):
        view: Any = pixels
    else:
        view = AxisView(pixels, keep, tuple(stored.values()))
        if isinstance(pixels, np.ndarray):
            view = view[(slice(None),) * len(axes)]
    return image_from_array(
        view,
        axes,
        channels=channel_names(names, samples),
        pixel_size=known_pixel_size(pixel_size, axes),
        source=label,
        warnings=warnings,
    )


def _kept(axis: str, sizes: Mapping[str, int], channels: int) -> bool:
    return axis in "YX" or (channels > 1 if axis == "C" else sizes.get(axis, 1) > 1)
