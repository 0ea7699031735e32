"""Number the objects of an image that is decoded block by block."""

from __future__ import annotations

from typing import Any

import fastremap
import numpy as np
from numpy.typing import NDArray


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
