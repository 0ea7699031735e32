"""Numbers of objects: small ones for tables, and running ones for an image that is decoded block by block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fastremap
import numpy as np
from numpy.typing import NDArray

_SMALL = 2**16  # numbers up to here index a table whatever the image's size


def dense_numbers(labels: NDArray[np.integer[Any]]) -> tuple[NDArray[np.integer[Any]], NDArray[np.int64]]:
    """Return labels that may index a table, however large the numbers of a label image are.

    Parameters
    ----------
    labels
        Any shape, none below 0.

    Returns
    -------
    dense
        The labels themselves where their largest number is small or at most the number of pixels; else numbered from
        1 in the same order. 0 stays 0.
    names
        (n + 1,) int64 what each number of `dense` stands for: ``names[dense]`` are the labels.
    """
    largest = int(labels.max(initial=0))
    if largest <= max(labels.size, _SMALL):
        return labels, np.arange(largest + 1)
    names = np.union1d(np.zeros(1, np.int64), fastremap.unique(labels).astype(np.int64))
    dense: NDArray[np.int64] = np.searchsorted(names, labels.astype(np.int64, copy=False))
    return dense, names


class Numbering:
    """Running numbers for objects that several blocks may show.

    An object is known by its identity, which all blocks agree on. It gets a number when it is first met;
    :meth:`ranks` then turns those numbers into the ones that the image decoded whole would have given.
    """

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._confidence: list[float] = [0.0]
        self._named = False

    @property
    def count(self) -> int:
        """Objects met so far."""
        return len(self._numbers)

    def number(
        self,
        values: NDArray[Any],
        identities: NDArray[np.int64] | None,
        confidence: NDArray[np.float32] | None = None,
    ) -> NDArray[Any]:
        """Turn a block's own object numbers into running numbers; values that name no objects pass as they are."""
        if identities is None:
            return values
        self._named = True
        table = np.zeros(len(identities), np.int32)
        for local in fastremap.unique(values):
            if local:
                identity = int(identities[local])
                if identity not in self._numbers:
                    self._numbers[identity] = len(self._numbers) + 1
                    self._confidence.append(1.0 if confidence is None else float(confidence[local]))
                table[local] = self._numbers[identity]
        numbered: NDArray[np.int32] = table[values]
        return numbered

    def confidence(self) -> NDArray[np.float32]:
        """Return how sure each object is, in the order of :meth:`ranks`; entry 0 means nothing."""
        found = np.array(self._confidence, np.float32)
        ranks = self.ranks()
        if ranks is None:
            return found
        ordered = np.empty_like(found)
        ordered[ranks] = found
        return ordered

    def ranks(self) -> NDArray[np.int32] | None:
        """Return, per running number, the object's rank in order of identity; None when nothing is to be renamed."""
        identities = np.fromiter(self._numbers, dtype=np.int64, count=len(self._numbers))
        order = np.argsort(identities)
        ranks = np.zeros(len(identities) + 1, np.int32)
        ranks[order + 1] = np.arange(1, len(identities) + 1, dtype=np.int32)
        in_order = bool((ranks == np.arange(len(ranks))).all())
        return None if in_order or not self._named else ranks


def own_numbers(
    values: NDArray[np.integer[Any]], identities: NDArray[np.int64], confidence: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.float32] | None]:
    """Give the objects of a part of a block numbers from 1 without gaps.

    Parameters
    ----------
    values
        Object numbers of the block, cut to the part.
    identities, confidence
        Of all objects of the block, by their number.

    Returns
    -------
    values, identities, confidence
        Of the objects that the part shows.
    """
    shown = fastremap.unique(values)
    shown = shown[shown > 0]
    table = np.zeros(len(identities), np.uint32)
    table[shown] = np.arange(1, len(shown) + 1, dtype=np.uint32)
    kept = np.concatenate((np.zeros(1, shown.dtype), shown))
    return table[values], identities[kept], None if confidence is None else confidence[kept]


def all_objects(
    identities: Sequence[NDArray[np.int64]], confidence: Sequence[NDArray[np.float32]] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the objects of an image from those of its blocks, several of which may show the same one.

    Parameters
    ----------
    identities, confidence
        Of every block, entry 0 naming no object. Blocks agree on an object's confidence; it is 1 where none is given.

    Returns
    -------
    identities, confidence
        (n + 1,) by the object's number in the image; entry 0 is 0.
    """
    known = np.concatenate([np.zeros(0, np.int64), *(own[1:] for own in identities)])
    found, first = np.unique(known, return_index=True)
    if confidence is None:
        sure = np.ones(len(found), np.float32)
    else:
        sure = np.concatenate([np.zeros(0, np.float32), *(own[1:] for own in confidence)])[first]
    return np.concatenate((np.zeros(1, np.int64), found)), np.concatenate((np.zeros(1, np.float32), sure))


def image_numbers(
    values: NDArray[np.integer[Any]], identities: NDArray[np.int64], objects: NDArray[np.int64]
) -> NDArray[np.uint32]:
    """Turn a block's own object numbers into those of the image.

    Parameters
    ----------
    values, identities
        Of the block.
    objects
        Identities of all objects of the image, as :func:`all_objects` gives them.
    """
    numbers: NDArray[np.uint32] = np.searchsorted(objects, identities).astype(np.uint32)
    renamed: NDArray[np.uint32] = numbers[values]
    return renamed
