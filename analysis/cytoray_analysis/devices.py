"""Which device computes, and how precisely."""

from __future__ import annotations

import ctypes
import functools
import platform
from typing import Literal

import torch

from cytoray_analysis.errors import RequestError

Precision = Literal["fp32", "bf16"]


def choose_device(name: str | None = None) -> torch.device:
    """Return the device of that name; an accelerator when there is one, else the CPU, by default.

    Raises
    ------
    RequestError
        The device does not exist here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RequestError(
            f"device {name!r} cannot be used: {str(error).splitlines()[0]}",
            field="device",
            hint="use cpu, or cuda on a machine that has it",
        ) from error
    return device


def choose_precision(device: torch.device) -> Precision:
    """Return bf16 where the device multiplies it natively (AVX-512 BF16, AMX, Ampere and later), else fp32."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"
    return "fp32"


def keep_freed_memory() -> None:
    """Have this process keep memory that it frees for its next use, where the C library is glibc.

    By default glibc gives large arrays back at once, and the kernel clears every page of the next one: a cost per
    pixel that grows with the image (44 % more time at 8 megapixels, none below 0.3). Peak memory is what the process
    holds from then on.
    """
    trim_threshold, mmap_max = -1, -4  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX
    library = _glibc()
    if library is not None:
        library.mallopt(trim_threshold, -1)
        library.mallopt(mmap_max, 0)


def return_freed_memory() -> None:
    """Give back what :func:`keep_freed_memory` has kept, for other processes and for arrays of other sizes."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
