"""The limit of virtual memory of a process: ``ulimit -v``, which batch systems set."""

from __future__ import annotations

import resource

from cytoray_analysis.errors import PlatformError

# Ray's processes reserve 3 to 4 GiB each on a few cores, most of which they never touch; the rest is for images.
LEAST_ADDRESS_SPACE = 6 * 2**30
REMEDY = "raise it: ulimit -v unlimited, or ask the operator; limit memory with a control group instead"


def address_space() -> int | None:
    """Return the limit in bytes; None if there is no limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


def require_address_space() -> None:
    """Raise an error before the start if the limit is too low; Ray would fail later.

    Raises
    ------
    PlatformError
        The limit is below what Ray's processes reserve.
    """
    limit = address_space()
    if limit is not None and limit < LEAST_ADDRESS_SPACE:
        raise PlatformError(
            f"expected {LEAST_ADDRESS_SPACE / 2**30:.1f} GiB of virtual memory for each process, got a limit "
            f"(RLIMIT_AS, ulimit -v) of {limit / 2**30:.1f} GiB",
            hint=REMEDY,
        )
