"""Functions that numba compiles when they are first called, and keeps compiled where there is a folder for that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function at its first call, without Python's lock.

    The machine code is kept beside the source, or in the user's cache folder; ``NUMBA_CACHE_DIR`` names another. Where
    neither can be written, as in a read-only container, each process compiles for itself: seconds once, the same
    answers.
    """
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError as error:
        if "no locator" not in str(error):
            raise
        return numba.njit(nogil=True)(function)
