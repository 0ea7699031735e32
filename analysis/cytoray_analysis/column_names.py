"""Unique names of columns, whatever the names of channels and classes are."""

from __future__ import annotations

from collections.abc import Iterable


def unique_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names in order; a repeated name gets a number as suffix.

    The number does not create the name of another entry, so names that are already unique do not change.

    Examples
    --------
    >>> unique_names(["DAPI", "DAPI", "GFP"])
    ('DAPI', 'DAPI_2', 'GFP')
    >>> unique_names(["DAPI", "DAPI", "DAPI_2"])
    ('DAPI', 'DAPI_3', 'DAPI_2')
    """
    given = tuple(names)
    taken: set[str] = set()
    unique = []
    for name in given:
        free, number = name, 2
        while free in taken or (free != name and free in given):
            free, number = f"{name}_{number}", number + 1
        taken.add(free)
        unique.append(free)
    return tuple(unique)
