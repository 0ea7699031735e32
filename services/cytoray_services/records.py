"""Records that were written earlier: what cannot be read is an error that names the file, never a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cytoray_analysis.errors import CytorayError, PlatformError

_REBUILT = "it is made again when it is missing: remove it"


@contextmanager
def reading(
    place: Path | str,
    what: str,
    *,
    hint: str | None = "restore it from a backup, or move it away",
    error: type[CytorayError] = PlatformError,
) -> Iterator[None]:
    """Turn what goes wrong while a record is read and understood into one of our errors.

    Parameters
    ----------
    place
        The file; or what else it is called, such as the tag of a model.
    what
        What should be there, such as ``"the state of a job"``.
    hint
        What to do about it.
    error
        What is raised.

    Raises
    ------
    PlatformError
        It cannot be read, is cut off, or holds something else.
    """
    try:
        yield
    except CytorayError:
        raise
    except OSError as cause:
        raise error(
            f"expected {what} in {place}, which cannot be read: {cause.strerror or cause}", field=str(place), hint=hint
        ) from cause
    # What parsers and constructors raise for text that is cut off, no UTF-8, or of another form.
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as cause:
        raise error(
            f"expected {what} in {place}, got something else: {_reason(cause)}", field=str(place), hint=hint
        ) from cause


@contextmanager
def reading_cache(path: Path, what: str) -> Iterator[None]:
    """Do the same for a file that is made again where it is missing."""
    with reading(path, what, hint=_REBUILT):
        yield


def _reason(cause: Exception) -> str:
    """Return one line about what is wrong, without the content, which may be long or private."""
    details = getattr(cause, "errors", None)
    if callable(details):
        first = details()[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"{place}: {first['msg']}" if place else str(first["msg"])
    if isinstance(cause, KeyError):
        return f"there is no {cause}"
    return str(cause).partition("\n")[0] or type(cause).__name__
