"""Pages of TIFF files that the metadata give to several planes, so that it is not known which of them they show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cytoray_analysis.images.tiff_series import PageAt

_NAMED = 3

Claimed = set[tuple[str, int]]
"""Pages that an image took: the key of their file, and their offset."""


def doubted(
    planes: Sequence[PageAt | None],
    outer: Sequence[tuple[str, int]],
    claimed: Claimed,
    offsets: Mapping[str, Sequence[int]],
) -> list[PageAt | None]:
    """Say of planes that share their page with another one that it is in doubt; reading them is an error.

    Parameters
    ----------
    planes
        Where the planes of an image lie, in C order.
    outer
        Axes and their lengths.
    claimed
        Pages of the images before it; those of this one are added.
    offsets
        Where the pages of each file lie, in their order.
    """
    claims: dict[tuple[str, int], list[int]] = {}
    for number, place in enumerate(planes):
        if place is not None:
            claims.setdefault((place.file, place.offset), []).append(number)
    numbers = {key: {offset: page for page, offset in enumerate(known)} for key, known in offsets.items()}
    answer = list(planes)
    for (key, offset), sharing in claims.items():
        page = f"page {numbers[key][offset]}" + (f" of {Path(key).name}" if key else "")
        if len(sharing) > 1:
            named = ", ".join(_name(number, outer) for number in sharing[:_NAMED])
            more = ", \u2026" if len(sharing) > _NAMED else ""
            doubt = f"is one of {len(sharing)} for which the metadata name the same {page} ({named}{more})"
        elif (key, offset) in claimed:
            doubt = f"is {page} by the metadata, which name it for another image, too"
        else:
            continue
        for number in sharing:
            place = planes[number]
            answer[number] = None if place is None else replace(place, doubt=doubt)
    claimed.update(claims)
    return answer


def _name(number: int, outer: Sequence[tuple[str, int]]) -> str:
    lengths = [length for _, length in outer]
    indexes = np.unravel_index(number, lengths) if math.prod(lengths) > 1 else (0,) * len(lengths)
    return " ".join(f"{axis}={index}" for (axis, length), index in zip(outer, indexes, strict=True) if length > 1)
