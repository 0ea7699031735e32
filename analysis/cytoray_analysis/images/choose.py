"""Selection from an open image: channels, a plane, a frame, other axes, another pixel size."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import AxesError
from cytoray_analysis.images.axes import AXES, COLOURS, channel_names, how_to_choose, known_pixel_size
from cytoray_analysis.images.image import AxisView, Image, decode_region
from cytoray_analysis.selection import AUTO, EACH, LARGEST, Selection

__all__ = ["choose", "choose_channels", "entry_of", "find_channel", "follow", "how_to_choose", "rename_axes"]

_WHAT = {"Z": "plane", "T": "frame", "C": "channel"}


@dataclass(frozen=True, eq=False)
class Entries:
    """Some entries of one axis of a lazily read array, in another order.

    Parameters
    ----------
    source
        Anything with ``shape``, ``dtype`` and numpy-style slicing.
    axis
        Which axis.
    entries
        Indices along it.
    """

    source: Any
    axis: int
    entries: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        shape = [int(length) for length in self.source.shape]
        shape[self.axis] = len(self.entries)
        return tuple(shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        dtype: np.dtype[Any] = np.dtype(self.source.dtype)
        return dtype

    def __getitem__(self, region: tuple[slice, ...]) -> NDArray[Any]:
        """Decode a region, one slice per axis; entry by entry, so that only those are read."""
        wanted = [slice(entry, entry + 1) for entry in self.entries[region[self.axis]]] or [slice(0, 0)]
        before, after = region[: self.axis], region[self.axis + 1 :]
        return np.concatenate([decode_region(self.source, (*before, one, *after)) for one in wanted], axis=self.axis)


@dataclass(frozen=True, eq=False)
class LargestAlong:
    """The maximum projection of a lazily read array along one axis, which it then lacks.

    Parameters
    ----------
    source, axis
        As in :class:`Entries`.
    """

    source: Any
    axis: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis that is left."""
        return tuple(int(length) for axis, length in enumerate(self.source.shape) if axis != self.axis)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        dtype: np.dtype[Any] = np.dtype(self.source.dtype)
        return dtype

    def __getitem__(self, region: tuple[slice, ...]) -> NDArray[Any]:
        """Decode a region, one slice per axis; memory holds one plane and the result."""
        largest: NDArray[Any] | None = None
        for entry in range(int(self.source.shape[self.axis])):
            wanted = (*region[: self.axis], slice(entry, entry + 1), *region[self.axis :])
            plane = decode_region(self.source, wanted).squeeze(self.axis)
            largest = plane.copy() if largest is None else np.maximum(largest, plane, out=largest)
        return np.asarray(largest)


def choose(image: Image, selection: Selection) -> Image:
    """Return the selected part of an image; nothing is decoded. ``each`` and ``series`` are handled elsewhere.

    Raises
    ------
    AxesError
        The image lacks the selection: an axis, an entry of it, a channel with this name.
    """
    if selection.input_axes is not None:
        image = rename_axes(image, selection.input_axes)
    elif selection.frame is not None and selection.plane is None and image.guessed_axes and "T" not in image.axes:
        image = rename_axes(image, image.axes.replace("Z", "T"))  # planes of unknown meaning are called frames
    if selection.channel:
        image = choose_channels(image, [find_channel(image, wanted) for wanted in selection.channel])
    if selection.frame not in (None, EACH):
        image = entry_of(image, "T", int(str(selection.frame)))
    if selection.plane == LARGEST:
        image = projected(image)
    elif selection.plane is not None and "Z" not in selection.each:
        image = entry_of(image, "Z", int(str(selection.plane)))
    if selection.diameter is not None:
        image = replace(image, diameter=AUTO if selection.diameter == AUTO else float(selection.diameter))
    sizes = selection.sizes()
    if sizes is None:
        return image
    # What is not given stays what the file says: --pixel-size 0.5 is about Y and X.
    known = {**(image.pixel_size or {}), **sizes} if sizes else {}
    return replace(image, pixel_size=known_pixel_size(known, image.axes))


def follow(truth: Image, selection: Selection, axes: str = "") -> Image:
    """Return the part of masks or of a target that belongs to the selection of their image.

    Planes, frames and renamed axes are selected in the same way; channels are not.

    Parameters
    ----------
    axes
        Of their image, after the selection. They define the meaning of pages if the file does not.

    Raises
    ------
    AxesError
        The plane or frame does not exist.
    """
    letters = selection.input_axes or ""
    letters = letters if "C" in truth.axes else letters.replace("C", "")
    if letters and len(letters) == len(truth.axes):
        truth = rename_axes(truth, letters)
    elif selection.frame is not None and truth.guessed_axes:
        truth = _frames_of_masks(truth, selection, axes)
    if "T" in truth.axes and selection.frame not in (None, EACH):
        truth = entry_of(truth, "T", int(str(selection.frame)))
    if "Z" in truth.axes and selection.plane not in (None, LARGEST) and "Z" not in selection.each:
        truth = entry_of(truth, "Z", int(str(selection.plane)))
    return truth


def _frames_of_masks(truth: Image, selection: Selection, axes: str) -> Image:
    """Treat pages of unknown meaning as frames if frames of the image are selected.

    One frame of a movie of stacks is a stack, and the pages of its masks are planes.

    Raises
    ------
    AxesError
        They may be frames, planes, or both in sequence.
    """
    if truth.axes == "CZYX":  # a number per pixel has no channels
        return rename_axes(truth, "TZYX")
    if truth.axes != "ZYX" or ("Z" in axes and selection.frame != EACH):
        return truth
    if selection.plane is not None and selection.frame != EACH:
        raise AxesError(
            f"{truth.source} does not state whether its {truth.size('Z')} pages are frames or planes, and one frame "
            "and one plane are selected",
            field="axes",
            hint="store it with its axes named, such as OME-TIFF of TZYX",
        )
    return rename_axes(truth, "TYX") if selection.plane is None else truth


def entries_along(image: Image, axes: str) -> Iterator[tuple[tuple[int, ...], Image]]:
    """Yield every entry of some axes by its position, outermost axis first, each as an image without these axes.

    Parameters
    ----------
    axes
        Of ``TZ``; the image has them.
    """
    for place in product(*(range(image.size(axis)) for axis in axes)):
        part = image
        for axis, entry in zip(axes, place, strict=True):
            part = entry_of(part, axis, entry)
        name = ", ".join(f"{_WHAT[axis]} {entry}" for axis, entry in zip(axes, place, strict=True))
        yield place, replace(part, source=f"{image.source}, {name}")


def find_channel(image: Image, wanted: str) -> int:
    """Return the index of a channel by its name (ignoring case if no name is equal), else by its number from 0.

    Raises
    ------
    AxesError
        No channel or several channels have this name.
    """
    names = list(image.channels)
    for known, asked in ((names, wanted), ([_folded(name) for name in names], _folded(wanted))):
        if known.count(asked) == 1:
            return known.index(asked)
        if known.count(asked) > 1:
            places = [place for place, name in enumerate(known) if name == asked]
            raise AxesError(
                f"{image.source}: {len(places)} channels have the name {wanted!r}: numbers "
                f"{', '.join(map(str, places))}",
                field="channel",
                hint=f"choose by number, such as --channel {places[0]}",
            )
    if wanted.isdecimal() and int(wanted) < len(names):
        return int(wanted)
    listed = ", ".join(f"{place} {name}" for place, name in enumerate(names))
    raise AxesError(
        f"{image.source}: expected a channel {wanted!r}, found {listed}",
        field="channel",
        hint="name one of those with --channel, by its name or its number from 0",
    )


def choose_channels(image: Image, entries: Sequence[int]) -> Image:
    """Return some channels of an image in this order, each with its number; a single one leaves no axis C.

    Raises
    ------
    AxesError
        A channel is chosen twice.
    """
    for place, entry in enumerate(entries):
        if entry in entries[:place]:
            raise AxesError(
                f"{image.source}: channel {entry} ({image.channels[entry]}) is chosen twice",
                field="channel",
                hint="name each channel once with --channel",
            )
    names, numbers = tuple(image.channels[entry] for entry in entries), tuple(entries)
    if "C" in image.axes and len(entries) == 1:
        return replace(entry_of(image, "C", entries[0]), channels=names, numbers=numbers)
    data = image.data
    if numbers != tuple(range(image.size("C"))):
        data = _held(Entries(data, image.axes.index("C"), numbers), image)
    return replace(image, data=data, channels=names, numbers=numbers)


def entry_of(image: Image, axis: str, entry: int) -> Image:
    """Return one entry of an axis, without that axis.

    Raises
    ------
    AxesError
        The image has no such entry.
    """
    length = image.size(axis)
    if entry >= length:
        what = _WHAT[axis]
        other = {"T": "Z", "Z": "T"}.get(axis, "")
        hint = f"numbers count from 0: choose --{what} 0" + (f" to {length - 1}" if length > 1 else " or leave it out")
        if axis not in image.axes and other in image.axes:
            hint = f"its axes are {image.axes}: if {other} is {axis}, use --input-axes"
            hint += f" {image.axes.replace(other, axis)}"
        raise AxesError(
            f"{image.source} has {length} {what}{'s' if length != 1 else ''} ({axis}), but number {entry} is selected",
            field=what,
            hint=hint,
        )
    if axis not in image.axes:
        return image
    place = image.axes.index(axis)
    keep = tuple(entry if index == place else slice(None) for index in range(len(image.axes)))
    view = AxisView(image.data, keep, tuple(index for index in range(len(image.axes)) if index != place))
    axes = image.axes.replace(axis, "")
    sizes = known_pixel_size(image.pixel_size or {}, axes)
    return replace(image, data=_held(view, image), axes=axes, pixel_size=sizes)


def rename_axes(image: Image, letters: str) -> Image:
    """Return an image with another meaning of its axes.

    Parameters
    ----------
    letters
        One for each of its axes, in their order; for colour images the samples may be last, as in files.

    Raises
    ------
    AxesError
        It has another number of axes.
    """
    stored = image.axes
    if len(letters) != len(stored):
        shape = " × ".join(map(str, image.shape))
        raise AxesError(
            f"{image.source} has {len(stored)} axes ({stored} = {shape}), but the input axes name {len(letters)} "
            f"({letters})",
            field="input_axes",
            hint=f"use one letter for each of its axes, such as --input-axes {stored}",
        )
    if letters.endswith("C") and image.channels == COLOURS and "C" in stored:
        place = stored.index("C")
        letters = letters[:place] + "C" + letters[place:-1]
    if letters == stored:
        return replace(image, guessed_axes=False)
    wanted = "".join(axis for axis in AXES if axis in letters)
    order = tuple(letters.index(axis) for axis in wanted)
    data: Any = image.data
    if order != tuple(range(len(order))):
        data = _held(AxisView(data, (slice(None),) * len(order), order), image)
    count = int(data.shape[wanted.index("C")]) if "C" in wanted else 1
    unmoved = {axis for axis, letter in zip(stored, letters, strict=True) if axis == letter}
    kept_names = "C" in unmoved or not {"C"} & {*stored, *letters}
    kept = {axis: size for axis, size in (image.pixel_size or {}).items() if axis in unmoved}
    return replace(
        image,
        data=data,
        axes=wanted,
        channels=image.channels if kept_names else channel_names(None, count),
        pixel_size=known_pixel_size(kept, wanted),
        guessed_axes=False,
    )


def projected(image: Image) -> Image:
    """Return the maximum projection of an image along Z."""
    if "Z" not in image.axes:
        return image
    axes = image.axes.replace("Z", "")
    view = LargestAlong(image.data, image.axes.index("Z"))
    sizes = known_pixel_size(image.pixel_size or {}, axes)
    return replace(image, data=_held(view, image), axes=axes, pixel_size=sizes)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold().strip()


def _held(view: Any, image: Image) -> Any:
    """Return a view as an array if the image is one."""
    return view[(slice(None),) * len(view.shape)] if isinstance(image.data, np.ndarray) else view
