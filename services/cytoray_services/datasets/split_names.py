"""Names of splits: the standard ones, and names that look like a misspelling of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cytoray_analysis.errors import DatasetError

SPLITS = ("train", "val", "test")
"""The splits that recipes, evaluation and the gate use. Other names are allowed."""
_OTHER_WORDS = {"training": "train", "validation": "val", "valid": "val", "validate": "val", "testing": "test"}
_NUMBERED = re.compile(r"[\s_.-]*\d+$")
_RESERVED = "all"  # means all splits


def nearest_split(name: str) -> str | None:
    """Return the split that a misspelled name means, or ``None`` for a correct or clearly different name.

    ``trian``, ``Val``, ``validation`` are misspelled; ``fold1``, ``holdout``, ``train2`` are other names. An empty name
    means ``train``.
    """
    if name in SPLITS:
        return None
    low = name.strip().casefold()
    if not low or low in SPLITS:
        return low or SPLITS[0]
    if low in _OTHER_WORDS:
        return _OTHER_WORDS[low]
    if _NUMBERED.sub("", low) in SPLITS:  # a numbered one is intended to be another
        return None
    distance, nearest = min((_distance(low, known), known) for known in SPLITS)
    return nearest if distance <= (1 if len(nearest) < 5 else 2) else None


def check_split(name: str, where: str) -> str:
    """Return the name of a split.

    Parameters
    ----------
    where
        Its source, for the error: a manifest with its line, or a folder.

    Raises
    ------
    DatasetError
        It looks misspelled, see :func:`nearest_split`; or it is ``all``, which means all splits.
    """
    nearest = nearest_split(name)
    if nearest is None and name.casefold() != _RESERVED:
        return name
    known = ", ".join(SPLITS)
    if not name.strip():
        got, hint = "an empty one", f"write one of {known}, or remove the column to draw a split"
    elif nearest is None:
        got, hint = f"{name!r}, which means all splits", f"write one of {known}, or another name"
    else:
        got, hint = f"{name!r}", f"write {nearest!r}; the standard splits are {known}; other names are allowed"
    raise DatasetError(
        f"{where}: expected the name of a split, such as {nearest or 'train'}, got {got}", field="split", hint=hint
    )


def _distance(one: str, other: str) -> int:
    """Return the edit distance of two words, with swaps of neighbours."""
    before: Sequence[int] = []
    row: Sequence[int] = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        twice_before, before, new = before, row, [i]
        for j, wanted in enumerate(other, start=1):
            cost = min(before[j] + 1, new[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                cost = min(cost, twice_before[j - 2] + 1)
            new.append(cost)
        row = new
    return row[-1]
