"""Lineages: which object of a frame is which cell, and which cell came from which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import CytorayError, DatasetError
from cytoray_analysis.numbering import dense_numbers
from cytoray_analysis.tracking.frames import FrameStack

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Lineage:
    """Tracks, their parents, and the objects that they go through.

    A track is one cell from its first frame to its last without a break. A parent with two daughters divided. A parent
    with one daughter is the same cell after frames in which it was not visible, as in the Cell Tracking Challenge.

    Parameters
    ----------
    frames
        Number of frames of the movie.
    shape
        Lengths of the spatial axes, (Y, X) or (Z, Y, X).
    track_id, begin, end, parent
        (K,) integers: the track's number from 1, its first and last frame, and its parent's number or 0. In order
        of `track_id`.
    frame, track, label
        (N,) integers per object: the frame, the number of its track, and its number in the mask of its frame. In
        order of frame and track.
    centroid
        (N, d) float64, in pixels.
    box
        (N, 2, d) integers: first pixel and one past the last along each axis.
    masks
        The movie of masks whose numbers are `label`; ``None`` when there is none.
    outlines
        Masks of a few frames (numbers have no meaning) that say better than `masks` where cells end, by frame:
        the truth of the segmentation score.
    confidence
        (K,) float32, 0 to 1: how sure the least sure link within or into each track is; ``None`` when unknown.
    division_confidence
        (K,) float32, 0 to 1: how sure the division is in which each track ends, NaN where it ends otherwise; ``None``
        when unknown.
    """

    frames: int
    shape: tuple[int, ...]
    track_id: Integers
    begin: Integers
    end: Integers
    parent: Integers
    frame: Integers
    track: Integers
    label: Integers
    centroid: NDArray[np.float64]
    box: Integers
    masks: FrameStack | None = None
    outlines: dict[int, Callable[[], NDArray[Any]]] = field(default_factory=dict)
    confidence: NDArray[np.float32] | None = None
    division_confidence: NDArray[np.float32] | None = None

    @property
    def table(self) -> Integers:
        """The tracks as a table (K, 4): number, first frame, last frame, parent."""
        return np.stack((self.track_id, self.begin, self.end, self.parent), axis=1)

    @property
    def divisions(self) -> Integers:
        """(D,) numbers of the tracks that end in a division."""
        parents, daughters = np.unique(self.parent[self.parent > 0], return_counts=True)
        return np.asarray(parents[daughters > 1])

    @property
    def labelled(self) -> FrameStack:
        """The masks.

        Raises
        ------
        DatasetError
            The lineage has none.
        """
        if self.masks is None:
            raise DatasetError(
                "expected a lineage with masks, got one without",
                field="masks",
                hint="link a movie of masks to get some",
            )
        return self.masks

    @property
    def tracked(self) -> FrameStack:
        """The masks with every pixel carrying the number of its track, (T, spatial…), frame by frame.

        They are int32, or int64 where a track's number needs it.

        Raises
        ------
        DatasetError
            The lineage has no masks.
        """
        masks, starts = self.labelled, np.searchsorted(self.frame, np.arange(self.frames + 1))

        small = int(self.track_id.max(initial=0)) <= np.iinfo(np.int32).max
        dtype: np.dtype[Any] = np.dtype(np.int32 if small else np.int64)

        def read(index: int) -> NDArray[Any]:
            pixels, names = dense_numbers(masks.read(index))
            own = slice(starts[index], starts[index + 1])
            label, track = self.label[own], self.track[own]
            place = np.searchsorted(names, label).clip(max=len(names) - 1)
            there = names[place] == label
            numbers = np.zeros(len(names), dtype)
            numbers[place[there]] = track[there]
            return np.asarray(numbers[pixels])

        return FrameStack(read, (self.frames, *self.shape), dtype)


def check_tracks(
    table: Integers,
    *,
    source: str = "the lineage",
    gap: int | None = 0,
    daughters: int = 2,
    error: type[CytorayError] = DatasetError,
) -> None:
    """Raise unless tracks make a valid lineage.

    Parameters
    ----------
    table
        (K, 4) integers: number, first frame, last frame, parent or 0.
    source
        A name for messages, such as the file's.
    gap
        Most frames between a parent's end and its daughter's begin; ``None`` for any number.
    daughters
        Most daughters of one parent.
    error
        What to raise.

    Raises
    ------
    DatasetError
        A number is not positive or not unique, a track ends before it begins, a parent is unknown, does not end
        before its daughter begins (which rules out cycles), ends too long before, or has too many daughters.
    """
    if len(table) == 0:
        return
    number, begin, end, parent = np.asarray(table, dtype=np.int64).T
    order = np.argsort(number, kind="stable")
    twice = number[order][1:][np.diff(number[order]) == 0]
    if twice.size:
        raise error(
            f"{source}: expected every track once, found track {twice[0]} again",
            field="track_id",
            hint="use a unique number for each track",
        )
    _forbid(number < 1, table, error, source, "a track's number must be at least 1", "number the tracks from 1")
    _forbid(begin < 0, table, error, source, "a track cannot begin before frame 0", "count frames from 0")
    _forbid(end < begin, table, error, source, "a track must not end before it begins", "swap begin and end")
    child = np.flatnonzero(parent)
    place = np.searchsorted(number[order], parent[child]).clip(max=len(order) - 1)
    known = number[order][place] == parent[child]
    if not known.all():
        row = child[~known][0]
        raise error(
            f"{source}: track {number[row]} names the parent {parent[row]}, which is not in the list",
            field="parent",
            hint="add the parent's line, or write 0 where the parent is unknown",
        )
    mother = order[place]
    late = begin[child] - end[mother]
    if (late < 1).any():
        row, before = child[late < 1][0], mother[late < 1][0]
        raise error(
            f"{source}: a parent must end before its daughter begins, but track {number[row]} begins in frame "
            f"{begin[row]} and its parent {number[before]} lasts from frame {begin[before]} to {end[before]}",
            field="parent",
            hint="check the order of the columns (number, begin, end, parent), or end the parent one frame earlier",
        )
    if gap is not None and (late > gap + 1).any():
        row, before = child[late > gap + 1][0], mother[late > gap + 1][0]
        raise error(
            f"{source}: expected at most {gap} frames between a parent and its daughter, but track {number[row]} "
            f"begins in frame {begin[row]} and its parent {number[before]} ends in frame {end[before]}",
            field="parent",
            hint="allow longer gaps, or write 0 as the parent",
        )
    parents, counts = np.unique(parent[child], return_counts=True)
    if (counts > daughters).any():
        worst = int(np.argmax(counts))
        raise error(
            f"{source}: expected at most {daughters} daughters, but track {parents[worst]} has {counts[worst]}",
            field="parent",
            hint="correct the parents, or allow more daughters",
        )


def check_lineage(
    lineage: Lineage,
    *,
    source: str = "the lineage",
    gap: int | None = 0,
    daughters: int = 2,
    error: type[CytorayError] = DatasetError,
) -> None:
    """Raise unless tracks are valid (see :func:`check_tracks`) and their objects are those that they need.

    Raises
    ------
    DatasetError
        A track has two objects in one frame, misses one in a frame between its first and its last, or has one
        outside them.
    """
    check_tracks(lineage.table, source=source, gap=gap, daughters=daughters, error=error)
    length = lineage.end - lineage.begin + 1
    wanted_track = np.repeat(lineage.track_id, length)
    start = np.repeat(np.cumsum(length) - length, length)
    wanted_frame = np.repeat(lineage.begin, length) + np.arange(int(length.sum())) - start
    wanted = np.unique(np.stack((wanted_frame, wanted_track), axis=1), axis=0)
    found, counts = np.unique(np.stack((lineage.frame, lineage.track), axis=1), axis=0, return_counts=True)
    if (counts > 1).any():
        frame, track = found[counts > 1][0]
        raise error(
            f"{source}: track {track} has {counts.max()} objects in frame {frame}; expected one",
            field="track",
            hint="a track has one object per frame; assign the others to separate tracks",
        )
    if not np.array_equal(wanted, found):
        in_table = {tuple(row) for row in wanted.tolist()}
        in_masks = {tuple(row) for row in found.tolist()}
        missing, surplus = sorted(in_table - in_masks), sorted(in_masks - in_table)
        frame, track = (missing or surplus)[0]
        said = "has no object" if missing else "has an object, but does not last to it or is not in the list,"
        raise error(
            f"{source}: track {track} {said} in frame {frame}",
            field="track",
            hint="list every track with its first and last frame in the masks; if a cell is not "
            "visible for some frames, end its track and begin a daughter",
        )


def _forbid(
    bad: NDArray[np.bool_], table: Integers, error: type[CytorayError], source: str, message: str, hint: str
) -> None:
    if bad.any():
        row = table[int(np.argmax(bad))]
        raise error(
            f"{source}: {message}, got number {row[0]}, begin {row[1]}, end {row[2]}, parent {row[3]}",
            field="tracks",
            hint=hint,
        )
