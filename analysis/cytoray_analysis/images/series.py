"""Files that hold several images: which one is the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cytoray_analysis.answer_warnings import AnswerWarning, Warnings
from cytoray_analysis.errors import RequestError, UnreadableImageError
from cytoray_analysis.selection import EACH, Selection

_DOMINANT = 4  # an image this many times larger than all others is the image among thumbnails
_LISTED = 12


@dataclass(frozen=True)
class SeriesInfo:
    """One image of a file.

    Attributes
    ----------
    name
        Its name in the file; may be empty.
    axes, shape
        As stored.
    reduced
        Whether it is a thumbnail or a reduced copy of another image.
    """

    name: str
    axes: str
    shape: tuple[int, ...]
    reduced: bool = False

    @property
    def title(self) -> str:
        """Name and size, for messages."""
        size = " × ".join(str(length) for length in self.shape)
        return f"{self.name!r} ({self.axes} {size})" if self.name else f"({self.axes} {size})"


def choose_series(series: Sequence[SeriesInfo], wanted: str | None, label: str) -> tuple[int, Warnings]:
    """Return the index of the selected image, and warnings about the choice.

    Parameters
    ----------
    series
        All images of the file, including reduced copies.
    wanted
        Name or number; None for the one that is at least four times as large as every other.

    Raises
    ------
    RequestError
        The series does not exist.
    UnreadableImageError
        Nothing is selected, and no image is much larger than the others.
    """
    if wanted is not None and wanted != EACH:
        return _find(series, wanted, label), ()
    candidates = [index for index, one in enumerate(series) if not one.reduced] or list(range(len(series)))
    if len(candidates) == 1:
        return candidates[0], ()
    sizes = {index: math.prod(series[index].shape) for index in candidates}
    first, second, *_ = sorted(candidates, key=lambda index: -sizes[index])
    if wanted is None and sizes[first] >= _DOMINANT * sizes[second]:
        others = ", ".join(series[index].title for index in candidates if index != first)
        sentence = f"{label}: the largest of {len(candidates)} images was used, {series[first].title}; not {others}"
        return first, (AnswerWarning("series-chosen", sentence),)
    raise UnreadableImageError(
        f"{label} contains {len(candidates)} images, and none is {_DOMINANT} times as large as the others: "
        f"{_listing(series)}",
        field="series",
        hint="choose one with --series NAME or --series N, or answer every one with --series each",
    )


def frames_missing(label: str, announced: int, there: int) -> AnswerWarning:
    """Return the warning that missing time points at the end of a stopped acquisition are omitted."""
    sentence = (
        f"{label}: its metadata declare {announced} time points, but it contains {there}; the missing ones at the end "
        "are omitted"
    )
    return AnswerWarning("frames-missing", sentence)


def _find(series: Sequence[SeriesInfo], wanted: str, label: str) -> int:
    names = [one.name for one in series]
    for known, asked in ((names, wanted), ([name.casefold() for name in names], wanted.casefold())):
        if known.count(asked) == 1:
            return known.index(asked)
    if wanted.isdecimal() and int(wanted) < len(series):
        return int(wanted)
    raise RequestError(
        f"expected one image {wanted!r} in {label}, found {_listing(series)}",
        field="series",
        hint="name one of those with --series, by its name or its number from 0",
    )


def _listing(series: Sequence[SeriesInfo]) -> str:
    shown = [f"{index} {one.title}" for index, one in enumerate(series[:_LISTED])]
    return ", ".join(shown) + (f" and {len(series) - _LISTED} more" if len(series) > _LISTED else "")


def each_series(found: Sequence[SeriesInfo], selection: Selection) -> list[tuple[str, Selection]]:
    """Return name and selection of every series; no name for a file of one image.

    Empty or repeated names are replaced by numbers.
    """
    others = selection.without("series")
    if sum(not one.reduced for one in found) <= 1:
        return [("", others)]
    names = [one.name.strip() for one in found]
    folded = [name.casefold() for name in names]
    chosen = []
    for number, name in enumerate(names):
        if found[number].reduced:
            continue
        clear = bool(name) and folded.count(name.casefold()) == 1
        # By number, which is unambiguous unless another series has this number as its name.
        wanted = name if clear and str(number) in folded else str(number)
        chosen.append((name if clear else str(number), Selection(**others.given(), series=wanted)))
    return chosen
