"""What an edit changes: pixels, objects and regions, each with its value before and after.

A change is stored with the edit, so that the log of an image gives the same labels again without drawing anything
again, and an edit is undone by exchanging before and after.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cytoray_services.corrections.edits import Region

_AT_ONCE = 2**22  # pixels


class CorrectedObject(BaseModel):
    """An object of an image.

    Attributes
    ----------
    made
        Whether the model or a person made it.
    by
        The person; None for the model.
    class_name
        Its class; None without one.
    confidence
        Probability that it is right, as the model gave it; None for objects of persons.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    made: Literal["model", "person"] = "model"
    by: str | None = None
    class_name: str | None = None
    confidence: float | None = None


Objects = Mapping[int, tuple[CorrectedObject | None, CorrectedObject | None]]
Regions = Mapping[int, tuple[Region | None, Region | None]]


class StoredChange(BaseModel):
    """A change in the log: pixels as base64 of deflated differences of int64."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pixels: str = ""
    objects: dict[int, tuple[CorrectedObject | None, CorrectedObject | None]] = {}
    regions: dict[int, tuple[Region | None, Region | None]] = {}


@dataclass(frozen=True, eq=False)
class Change:
    """What an edit changes.

    Attributes
    ----------
    pixels
        (n, 4) int64: runs of pixels in the order of memory of (T, Z, Y, X), each with its start, length, label before
        and label after; sorted, without overlaps.
    objects, regions
        By number: before and after, None if it does not exist.
    """

    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 4), np.int64))
    objects: Objects = field(default_factory=dict)
    regions: Regions = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(len(self.pixels) or self.objects or self.regions)

    @property
    def touched(self) -> frozenset[int]:
        """The objects whose pixels or properties change."""
        labels = {int(label) for label in np.unique(self.pixels[:, 2:]) if label}
        return frozenset(labels | self.objects.keys())

    def reversed(self) -> Change:
        """Return the change that undoes this one."""
        return Change(
            self.pixels[:, [0, 1, 3, 2]],
            {label: (after, before) for label, (before, after) in self.objects.items()},
            {number: (after, before) for number, (before, after) in self.regions.items()},
        )

    def fits(self, labels: NDArray[np.uint32]) -> bool:
        """Whether all pixels of a label image have their values before the change."""
        flat = labels.reshape(-1)
        return all((flat[places] == before).all() for places, before, _ in self._pieces())

    def apply(self, labels: NDArray[np.uint32]) -> None:
        """Write the labels after the change into a contiguous label image."""
        flat = labels.reshape(-1)
        for places, _, after in self._pieces():
            flat[places] = after

    def meets(self, other: Change) -> bool:
        """Whether two changes are of the same pixel, object or region."""
        if self.objects.keys() & other.objects.keys() or self.regions.keys() & other.regions.keys():
            return True
        begin, end = self.pixels[:, 0], self.pixels[:, 0] + self.pixels[:, 1]
        first, last = other.pixels[:, 0], other.pixels[:, 0] + other.pixels[:, 1]
        # Runs of this change that begin before a run of the other one ends, without those that end before it begins.
        shared = np.searchsorted(begin, last) - np.searchsorted(end, first, side="right")
        return bool((shared > 0).any())

    def _pieces(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
        """Yield places, labels before and labels after, some million pixels at a time."""
        ends = np.cumsum(self.pixels[:, 1])
        first = 0
        while first < len(self.pixels):
            done = int(ends[first - 1]) if first else 0
            last = max(int(np.searchsorted(ends, done + _AT_ONCE, side="right")), first + 1)
            start, length, before, after = self.pixels[first:last].T
            inside = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
            yield np.repeat(start, length) + inside, np.repeat(before, length), np.repeat(after, length)
            first = last

    def box(self, shape: tuple[int, ...]) -> tuple[tuple[int, int], ...] | None:
        """Return first and last + 1 along T, Z, Y and X of the changed pixels; None without any."""
        if not len(self.pixels):
            return None
        first = np.unravel_index(self.pixels[:, 0], shape)
        last = np.unravel_index(self.pixels[:, 0] + self.pixels[:, 1] - 1, shape)
        # A run ends in the row where it starts.
        return tuple((int(low.min()), int(high.max()) + 1) for low, high in zip(first, last, strict=True))

    def stored(self) -> StoredChange:
        """Return the change for the log."""
        differences = np.diff(self.pixels, axis=0, prepend=np.zeros((1, 4), np.int64)).astype("<i8")
        packed = zlib.compress(np.ascontiguousarray(differences.T).tobytes(), 6) if len(self.pixels) else b""
        return StoredChange(
            pixels=base64.b64encode(packed).decode(), objects=dict(self.objects), regions=dict(self.regions)
        )

    @classmethod
    def of(cls, stored: StoredChange) -> Change:
        """Read what :meth:`stored` returned."""
        if not stored.pixels:
            return cls(objects=stored.objects, regions=stored.regions)
        packed = zlib.decompress(base64.b64decode(stored.pixels))
        differences = np.frombuffer(packed, "<i8").reshape(4, -1).T
        return cls(np.cumsum(differences, axis=0, dtype=np.int64), stored.objects, stored.regions)


def pixel_runs(places: NDArray[np.int64], before: NDArray[Any], after: NDArray[Any], width: int) -> NDArray[np.int64]:
    """Return the runs of some pixels, for :attr:`Change.pixels`.

    Parameters
    ----------
    places
        (n,) sorted flat indices.
    before, after
        (n,) the labels.
    width
        Pixels of a row; a run ends with its row.
    """
    changed = before != after
    places, before, after = places[changed], before[changed].astype(np.int64), after[changed].astype(np.int64)
    if not len(places):
        return np.zeros((0, 4), np.int64)
    begins = np.ones(len(places), np.bool_)
    begins[1:] = (
        (np.diff(places) != 1)
        | (before[1:] != before[:-1])
        | (after[1:] != after[:-1])
        | (places[1:] // width != places[:-1] // width)
    )
    first = np.flatnonzero(begins)
    length = np.diff(np.append(first, len(places)))
    return np.stack((places[first], length, before[first], after[first]), axis=1)
