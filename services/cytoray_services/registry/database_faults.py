"""Errors of the database of the registry, as messages without SQL."""

from __future__ import annotations

import re

from cytoray_analysis.errors import PlatformError

_MODULES = ("sqlite3", "sqlalchemy", "alembic")
# Texts of SQLite, SQLAlchemy and Alembic, with our message and hint.
_FAULTS: tuple[tuple[str, str, str], ...] = (
    (
        "database is locked|table is locked",
        "another process has locked the database of the registry",
        "wait until it has finished, then run the command again",
    ),
    (
        "unable to open database|readonly database|disk I/O error|disk is full",
        "the database of the registry cannot be opened or written",
        "check the free disk space and the permissions; CYTORAY_HOME sets its folder",
    ),
    (
        "not a database|malformed|no such table|no such column|locate revision|out-of-date database|already exists",
        "the database of the registry is damaged, or from another release of MLflow",
        "restore a backup, or move it away to start with an empty registry",
    ),
)


def is_of_database(error: BaseException) -> bool:
    """Whether a database library raised the error."""
    return type(error).__module__.partition(".")[0] in _MODULES


def database_fault(said: str, where: str | None = None) -> PlatformError | None:
    """Return the error for a message of a database; None for any other text.

    Parameters
    ----------
    said
        The text of its error.
    where
        The address of the registry.
    """
    for pattern, what, remedy in _FAULTS:
        found = re.search(pattern, said, re.IGNORECASE)
        if found is not None:
            line = next((one.strip() for one in said.splitlines() if found[0] in one), found[0])
            place = f" ({where})" if where else ""
            return PlatformError(f"{what}{place}: {line[:300]}", field="CYTORAY_HOME", hint=remedy)
    return None
