"""What goes wrong with one input, as an error that is reported beside the answers to the others."""

from __future__ import annotations

from pathlib import Path

from cytoray_analysis.errors import CytorayError, ImageTooLargeError, PlatformError
from cytoray_services.commands.machine_faults import machine_fault


def as_error(error: Exception, source: str | Path) -> CytorayError:
    """Return any exception that an input caused as an error with a sentence.

    Parameters
    ----------
    error
        What was raised; errors of ours stay as they are.
    source
        The input, for the message.
    """
    if isinstance(error, CytorayError):
        return error
    said = " ".join(str(error).split())[:300]
    if isinstance(error, MemoryError) or "out of memory" in said.lower() or "can't allocate memory" in said.lower():
        return ImageTooLargeError(
            f"{source} does not fit into memory{f': {said}' if said else ''}",
            hint="give less --memory, so that larger images are cut; or crop the image",
        )
    if isinstance(error, OSError):
        return system_error(error, f"{source} could not be answered")
    return CytorayError(
        f"{source} could not be answered: {type(error).__name__}: {said}",
        hint="the file is damaged in an unexpected way, or this is a fault of Cytoray: report it with the file",
    )


def system_error(error: OSError, what: str) -> PlatformError:
    """Return what the operating system refused as an error; `what` begins the sentence."""
    fault = machine_fault(error)
    if fault is None:
        return PlatformError(f"{what}: {error.strerror or error}")
    return PlatformError(f"{what}: {fault.message}", hint=fault.hint)
