"""What is wrong with the registry's database, as a sentence instead of SQL."""

from __future__ import annotations

import re

from cytoray_analysis.errors import PlatformError

_MODULES = ("sqlite3", "sqlalchemy", "alembic")
# By what SQLite, SQLAlchemy and Alembic say: what is wrong, and what to do.
_FAULTS: tuple[tuple[str, str, str], ...] = (
    (
        "database is locked|table is locked",
        "another process holds the registry's database",
        "wait until that is done, then run the command again",
    ),
    (
        "unable to open database|readonly database|disk I/O error|disk is full",
        "the registry's database cannot be opened or written",
        "see whether there is room and whether you may write there; CYTORAY_HOME names its folder",
    ),
    (
        "not a database|malformed|no such table|no such column|locate revision|out-of-date database|already exists",
        "the registry's database is damaged, or of another release of MLflow",
        "put a copy of it from before in its place, or move it away to begin with an empty registry",
    ),
)


def is_of_database(error: BaseException) -> bool:
    """Whether a library of databases raised it."""
    return type(error).__module__.partition(".")[0] in _MODULES


def database_fault(said: str, where: str | None = None) -> PlatformError | None:
    """Return the sentence for what a database says; None for anything else.

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
