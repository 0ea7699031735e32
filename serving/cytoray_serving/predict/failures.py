"""Turns any failure of one input into an error that is reported with the answers to the others."""

from __future__ import annotations

from pathlib import Path

from cytoray_analysis.errors import CytorayError, ImageTooLargeError, PlatformError
from cytoray_services.commands.machine_faults import machine_fault


def as_error(error: Exception, source: str | Path) -> CytorayError:
    """Return an exception of an input as an error with a message.

    Parameters
    ----------
    error
        The exception; errors of Cytoray are returned unchanged.
    source
        The input, for the message.
    """
    if isinstance(error, CytorayError):
        return error
    said = " ".join(str(error).split())[:300]
    if isinstance(error, MemoryError) or "out of memory" in said.lower() or "can't allocate memory" in said.lower():
        return ImageTooLargeError(
            f"{source} does not fit into memory{f': {said}' if said else ''}",
            hint="use a smaller --memory, so that the image is processed in tiles; or crop the image",
        )
    if isinstance(error, OSError):
        return system_error(error, f"{source} could not be answered")
    return CytorayError(
        f"{source} could not be answered: {type(error).__name__}: {said}",
        hint="the file is damaged in an unexpected way, or this is a bug of Cytoray: report it with the file",
    )


def system_error(error: OSError, what: str) -> PlatformError:
    """Return an error of the operating system; `what` is the beginning of the message."""
    fault = machine_fault(error)
    if fault is None:
        return PlatformError(f"{what}: {error.strerror or error}")
    return PlatformError(f"{what}: {fault.message}", hint=fault.hint)
