"""Checks that a recipe only uses data of its team."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from cytoray_analysis.errors import ForbiddenError
from cytoray_services.datasets.remote.data_uris import CLAIMS
from cytoray_services.jobs.service.config import Quota
from cytoray_services.storage.inside import Inside, depth

_HINT = "use data of your own team; the operator lists them in the configuration of the jobs service"


def own_data(team: str | None, data: Iterable[str], teams: Mapping[str, Quota]) -> tuple[str, ...] | None:
    """Refuse data of other teams, and return the only locations that a job may read.

    The longest matching entry of a location counts. A location is extended to the widest parent folder without data of
    others, up to the entry of the team or the whole claim: links and manifests may lead anywhere in that folder, and
    nowhere else.

    Parameters
    ----------
    team
        Team of the job.
    data
        Locations from a recipe.

    Returns
    -------
    tuple or None
        None if no team has its own data, so that there is no restriction.

    Raises
    ------
    ForbiddenError
        A location is inside the data of another team, or contains some; or it is a path without an entry.
    """
    entries = [(_path(entry), name == team) for name, quota in teams.items() for entry in quota.data]
    inside = Inside(*(tuple(entry for entry, is_own in entries if is_own is wanted) for wanted in (True, False)))
    return tuple(dict.fromkeys(_own(team, place, inside) for place in data)) if entries else None


def _own(team: str | None, place: str, inside: Inside) -> str:
    path = _path(place)
    deepest = depth(path, (*inside.roots, *inside.refused))
    if (deepest and not inside.holds(path)) or inside.others_below(path):
        raise ForbiddenError(
            f"expected data that the team {team or 'none'} may use, got {place}, which belongs to another team",
            field="data.root",
            hint=_HINT,
        )
    scheme = place.partition("://")[0].lower() if "://" in place else "file"
    if scheme == "file" and (not deepest or not place.removeprefix("file://").startswith("/")):
        raise ForbiddenError(
            f"expected s3://bucket/prefix, pvc://claim/path, or an absolute path inside the data of the team "
            f"{team or 'none'}, got {place}",
            field="data.root",
            hint=_HINT,
        )
    if scheme == "s3":
        if {".", ".."} & set(place.split("/")):  # in a store these are ordinary names
            raise ForbiddenError(f"expected s3://bucket/prefix without '.' and '..', got {place}", field="data.root")
        return place
    least = max(deepest, len(CLAIMS.parts) + 1) if scheme == "pvc" else deepest
    while len(path.parts) > least and not inside.others_below(path.parent):
        path = path.parent
    if scheme == "pvc":
        return f"pvc://{'/'.join(path.parts[len(CLAIMS.parts) :])}"
    return f"/{'/'.join(path.parts[1:])}"


def _path(place: str) -> PurePosixPath:
    """Return scheme and path; the path of a claim in jobs is equivalent to its URI."""
    scheme, separator, rest = place.partition("://")
    if not separator:
        scheme, rest = "file", place
    if scheme.lower() == "pvc":
        scheme, rest = "file", f"{CLAIMS}/{rest}"
    return PurePosixPath(scheme.lower(), posixpath.normpath(f"/{rest}").lstrip("/"))
