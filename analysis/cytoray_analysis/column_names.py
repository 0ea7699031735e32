"""Names of columns: each of its own, whatever the names of channels and classes are."""

from __future__ import annotations

from collections.abc import Iterable


def unique_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names in order, a later one of the same name with a number behind it.

    A number is none that another name has already, so that names which are different from the beginning stay as they
    are.

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
