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
        self._named = False

    @property
    def count(self) -> int:
        """Objects met so far."""
        return len(self._numbers)

    def number(self, values: NDArray[Any], identities: NDArray[np.int64] | None) -> NDArray[Any]:
        """Turn a block's own object numbers into running numbers; values that name no objects pass as they are."""
        if identities is None:
            return values
        self._named = True
        table = np.zeros(len(identities), np.int32)
        for local in fastremap.unique(values):
            if local:
                identity = int(identities[local])
                table[local] = self._numbers.setdefault(identity, len(self._numbers) + 1)
        numbered: NDArray[np.int32] = table[values]
        return numbered

    def ranks(self) -> NDArray[np.int32] | None:
        """Return, per running number, the object's rank in order of identity; None when nothing is to be renamed."""
        identities = np.fromiter(self._numbers, dtype=np.int64, count=len(self._numbers))
        order = np.argsort(identities)
        ranks = np.zeros(len(identities) + 1, np.int32)
        ranks[order + 1] = np.arange(1, len(identities) + 1, dtype=np.int32)
        in_order = bool((ranks == np.arange(len(ranks))).all())
        return None if in_order or not self._named else ranks
