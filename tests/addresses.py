"""Programs whose addresses of memory are limited, as batch systems do: without root's right to raise a limit again."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys

_DROP, _RESOURCES = 24, 24  # PR_CAPBSET_DROP of prctl(2), CAP_SYS_RESOURCE


def run_limited(source: str, limit: int) -> subprocess.CompletedProcess[str]:
    """Run a Python program that may reserve so many bytes."""

    def lower() -> None:
        if os.geteuid() == 0 and ctypes.CDLL(None).prctl(_DROP, _RESOURCES, 0, 0, 0):
            raise OSError("the right to raise limits could not be dropped")
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    return subprocess.run(
        [sys.executable, "-c", source], preexec_fn=lower, capture_output=True, text=True, check=False, timeout=240
    )
