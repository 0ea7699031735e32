"""Pages of TIFF files that the metadata assign to several planes, so their position is ambiguous."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cytoray_analysis.images.tiff_series import PageAt

_NAMED = 3

Claimed = set[tuple[str, int]]
"""Pages of an image: the key of their file, and their offset."""


def doubted(
    planes: Sequence[PageAt | None],
    outer: Sequence[tuple[str, int]],
    claimed: Claimed,
    offsets: Mapping[str, Sequence[int]],
) -> list[PageAt | None]:
    """Mark planes that share their page with another one as ambiguous; reading them is an error.

    Parameters
    ----------
    planes
        Locations of the planes of an image, in C order.
    outer
        Axes and their lengths.
    claimed
        Pages of the previous images; those of this one are added.
    offsets
        Offsets of the pages of each file, in their order.
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
            doubt = f"is {page} according to the metadata, which also assign it to another image"
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
