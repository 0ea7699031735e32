"""What the installed distributions ask for, by extra."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement


def requirements_of(distribution: str, extra: str = "") -> Iterator[Requirement]:
    """Yield what a distribution, or one of its extras, asks for on this Python and this system.

    Parameters
    ----------
    distribution
        An installed distribution, such as ``cytoray``.
    extra
        One of its extras; nothing for what the distribution always needs.

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
    """Return the version that is installed of a required distribution; None without any."""
    try:
        return version(requirement.name)
    except PackageNotFoundError:
        return None
