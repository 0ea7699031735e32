"""Reading of stored records: a damaged record raises an error that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cytoray_analysis.errors import CytorayError, PlatformError

_REBUILT = "remove it; it is created again"


@contextmanager
def reading(
    place: Path | str,
    what: str,
    *,
    hint: str | None = "restore it from a backup, or move it away",
) -> Iterator[None]:
    """Convert the errors of reading and parsing a record to :class:`~cytoray_analysis.errors.PlatformError`.

    Parameters
    ----------
    place
        The file, or another name, such as the tag of a model.
    what
        The expected content, such as ``"the state of a job"``.
    hint
        What to do.

    Raises
    ------
    PlatformError
        It cannot be read, is cut off, or contains something else.
    """
    try:
        yield
    except CytorayError:
        raise
    except OSError as cause:
        raise PlatformError(
            f"expected {what} in {place}, which cannot be read: {cause.strerror or cause}", field=str(place), hint=hint
        ) from cause
    # The errors of parsers and constructors for text that is cut off, not UTF-8, or of another form.
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as cause:
        raise PlatformError(
            f"expected {what} in {place}, got something else: {_reason(cause)}", field=str(place), hint=hint
        ) from cause


@contextmanager
def reading_cache(path: Path, what: str) -> Iterator[None]:
    """Do the same for a cache file, which is created again if it is missing."""
    with reading(path, what, hint=_REBUILT):
        yield


def _reason(cause: Exception) -> str:
    """Return the reason in one line, without the content, which may be long or private."""
    details = getattr(cause, "errors", None)
    if callable(details):
        first = details()[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"{place}: {first['msg']}" if place else str(first["msg"])
    if isinstance(cause, KeyError):
        return f"{cause} is missing"
    return str(cause).partition("\n")[0] or type(cause).__name__
