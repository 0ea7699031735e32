"""The requirements of installed distributions and their extras."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement


def requirements_of(distribution: str, extra: str = "") -> Iterator[Requirement]:
    """Yield the requirements of a distribution, or of one of its extras, on this Python and this system.

    Parameters
    ----------
    distribution
        An installed distribution, such as ``cytoray``.
    extra
        One of its extras; empty for the requirements of the distribution itself.

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        There is no such distribution.
    """
    for line in requires(distribution) or ():
        requirement = Requirement(line)
        marker = requirement.marker
        always = marker is None or marker.evaluate({"extra": ""})
        if always != bool(extra) and (marker is None or marker.evaluate({"extra": extra})):
            yield requirement


def installed_version(requirement: Requirement) -> str | None:
    """Return the installed version of a required distribution; None if it is not installed."""
    try:
        return version(requirement.name)
    except PackageNotFoundError:
        return None
