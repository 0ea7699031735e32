"""The chunks of a Zarr array: which are stored, and whether a missing one can be blank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from cytoray_analysis.answer_warnings import Warnings
from cytoray_analysis.errors import CytorayError, UnreadableImageError
from cytoray_analysis.images.choose import Entries
from cytoray_analysis.images.damage import DAMAGE
from cytoray_analysis.images.series import frames_missing

_MOST_LACKING = 2**14  # chunks without bytes that are looked at around one


@dataclass(frozen=True, eq=False)
class StoredChunks:
    """A zarr array in which a missing chunk reads as blank only if that is plausible.

    Writers omit chunks in which every pixel has the fill value; an incomplete copy lacks other chunks. A missing chunk
    counts as blank if the adjacent pixels of its neighbours are also blank.

    Parameters
    ----------
    array
        The zarr array.
    axes
        One letter per axis.
    label
        The image's name, for messages.
    labels
        Whether it is a label image: chunks without objects may be missing.
    blank
        Chunks that are known to be blank.
    """

    array: Any
    axes: str
    label: str
    labels: bool = False
    blank: set[tuple[int, ...]] = field(default_factory=set, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return tuple(int(length) for length in self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        dtype: np.dtype[Any] = np.dtype(self.array.dtype)
        return dtype

    def __getitem__(self, region: tuple[slice, ...]) -> np.ndarray:
        """Decode a region, one slice per axis.

        Raises
        ------
        UnreadableImageError
            It touches a chunk that was not copied, or is damaged.
        """
        try:
            pixels = np.asarray(self.array[region])
        except CytorayError:  # errors of the store: no permission, or too large
            raise
        except DAMAGE as error:
            damaged = self._damaged(region)
            if damaged is None:
                raise
            raise damaged from error
        if not pixels.size:
            return pixels
        for chunk in self._touched(region):
            if chunk in self.blank:
                continue
            part = pixels[self._inside(chunk, region)]
            # Only a chunk that reads as the fill value can be missing.
            if part.size and part.flat[0] == self._fill and (part == self._fill).all():
                self._check_filled(chunk)
        return pixels

    def _check_filled(self, chunk: tuple[int, ...]) -> None:
        """Raise if a chunk reads as the fill value because its pixels are missing."""
        if self.array.shards and self._is_empty(chunk):  # zarr reads a shard without bytes as blank
            raise self._unreadable(chunk, "its file is empty")
        if not self.labels and not self.is_stored(chunk):
            self._require_blank(chunk)

    def _damaged(self, region: tuple[slice, ...]) -> UnreadableImageError | None:
        """Return an error for the first chunk of a region that cannot be decoded; None if all can."""
        for chunk in self._touched(region):
            try:
                self.array[tuple(self._pixels_of(chunk))]
            except DAMAGE as error:
                return self._unreadable(chunk, " ".join(str(error).split())[:200] or type(error).__name__)
        return None

    @property
    def _fill(self) -> Any:
        value = self.array.fill_value
        return 0 if value is None else value

    @property
    def sides(self) -> tuple[int, ...]:
        """Length of a chunk along each axis."""
        return tuple(int(side) for side in (self.array.shards or self.array.chunks))

    def _touched(self, region: tuple[slice, ...]) -> Iterator[tuple[int, ...]]:
        ranges = []
        for part, side, length in zip(region, self.sides, self.shape, strict=True):
            covered = range(*part.indices(length))
            ranges.append(range(min(covered) // side, max(covered) // side + 1))
        return product(*ranges)

    def _inside(self, chunk: tuple[int, ...], region: tuple[slice, ...]) -> tuple[slice, ...]:
        """Return the part of a region's pixels in a chunk."""
        parts = []
        for number, part, side, length in zip(chunk, region, self.sides, self.shape, strict=True):
            covered = range(*part.indices(length))
            places = [place for place, entry in enumerate(covered) if number * side <= entry < (number + 1) * side]
            parts.append(slice(places[0], places[-1] + 1) if places else slice(0, 0))
        return tuple(parts)

    def is_stored(self, chunk: tuple[int, ...]) -> bool:
        """Whether the store has a chunk."""
        from zarr.core.sync import sync

        return bool(sync(self.array.store.exists(self._path_of(chunk))))

    def _is_empty(self, chunk: tuple[int, ...]) -> bool:
        from zarr.core.sync import sync

        return self.is_stored(chunk) and not sync(self.array.store.getsize(self._path_of(chunk)))

    def _path_of(self, chunk: tuple[int, ...]) -> str:
        key = self.array.metadata.encode_chunk_key(chunk)
        return f"{self.array.path}/{key}" if self.array.path else str(key)

    def _pixels_of(self, chunk: tuple[int, ...]) -> list[slice]:
        return [
            slice(number * side, min((number + 1) * side, length))
            for number, side, length in zip(chunk, self.sides, self.shape, strict=True)
        ]

    def _require_blank(self, chunk: tuple[int, ...]) -> None:
        """Raise unless the stored neighbours of missing chunks are blank at the border; remember the blank ones."""
        open_, lacking, stored = [chunk], {chunk}, False
        y, x = self.axes.index("Y"), self.axes.index("X")
        while open_:
            current = open_.pop()
            for axis, step in ((y, -1), (y, 1), (x, -1), (x, 1)):
                neighbour = (*current[:axis], current[axis] + step, *current[axis + 1 :])
                border = self._border(current, axis, step)
                if border is None or neighbour in lacking:
                    continue
                if not self.is_stored(neighbour):
                    lacking.add(neighbour)
                    open_.append(neighbour)
                    if len(lacking) > _MOST_LACKING:
                        raise self._not_copied(chunk)
                    continue
                stored = True
                if not (np.asarray(self.array[border]) == self._fill).all():
                    raise self._not_copied(chunk)
        if not stored:
            raise self._not_copied(chunk)
        self.blank.update(lacking)

    def _border(self, chunk: tuple[int, ...], axis: int, step: int) -> tuple[slice, ...] | None:
        """Return the line of pixels next to a chunk; None at the border of the image."""
        parts = self._pixels_of(chunk)
        place = parts[axis].start - 1 if step < 0 else parts[axis].stop
        if not 0 <= place < self.shape[axis]:
            return None
        parts[axis] = slice(place, place + 1)
        return tuple(parts)

    def _name_of(self, chunk: tuple[int, ...]) -> str:
        zipped = zip(self.axes, chunk, self.sides, strict=True)
        named = ", ".join(f"{axis}={number * side}" for axis, number, side in zipped)
        return f"{self.label}: the chunk {self.array.metadata.encode_chunk_key(chunk)} (from {named})"

    def _not_copied(self, chunk: tuple[int, ...]) -> UnreadableImageError:
        return UnreadableImageError(
            f"{self._name_of(chunk)} is missing in the store, and the image is not blank around it",
            field="bytes",
            hint="the OME-Zarr was not copied completely; copy it again, or choose existing parts with --plane N, "
            "--frame N or --channel NAME",
        )

    def _unreadable(self, chunk: tuple[int, ...], why: str) -> UnreadableImageError:
        return UnreadableImageError(
            f"{self._name_of(chunk)} could not be decoded: {why}",
            field="bytes",
            hint="its file is damaged; copy the OME-Zarr again, or choose intact parts with --plane N, --frame N or "
            "--channel NAME",
        )


def without_tail(pixels: StoredChunks) -> tuple[Any, Warnings]:
    """Omit complete time points without stored data at the end, as after a stopped acquisition."""
    shape, time = pixels.shape, pixels.axes.find("T")
    if pixels.labels or time < 0 or shape[time] < 2:
        return pixels, ()
    counts = [-(-length // side) for length, side in zip(shape, pixels.sides, strict=True)]
    others = [range(count) for count in counts]
    looked = 0
    for last in reversed(range(counts[time])):
        for chunk in product(*others[:time], (last,), *others[time + 1 :]):
            looked += 1
            if looked > _MOST_LACKING:
                return pixels, ()
            if pixels.is_stored(chunk):
                kept = min((last + 1) * pixels.sides[time], shape[time])
                if kept == shape[time]:
                    return pixels, ()
                return Entries(pixels, time, tuple(range(kept))), (frames_missing(pixels.label, shape[time], kept),)
    return pixels, ()  # nothing is stored: reading reports it
