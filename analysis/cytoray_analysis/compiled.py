"""Functions that numba compiles at the first call, and caches on disk if possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function at its first call, without Python's lock.

    The machine code is stored next to the source, or in the user's cache folder; ``NUMBA_CACHE_DIR`` names another. If
    neither is writable, as in a read-only container, each process compiles again, which takes seconds.
    """
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError as error:
        if "no locator" not in str(error):
            raise
        return numba.njit(nogil=True)(function)
