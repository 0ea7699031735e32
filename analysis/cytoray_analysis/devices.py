"""Device, precision and memory of computations; imported without PyTorch."""

from __future__ import annotations

import ctypes
import functools
import platform
from typing import TYPE_CHECKING, Literal

from cytoray_analysis.errors import RequestError

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16"]
MEMORY_BUDGET = 2**30  # bytes; with the process itself, about two gigabytes


def choose_device(name: str | None = None) -> torch.device:
    """Return the device with this name; by default an accelerator if available, else the CPU.

    Raises
    ------
    RequestError
        The device does not exist here.
    """
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RequestError(
            f"device {name!r} cannot be used: {str(error).splitlines()[0]}",
            field="device",
            hint="use cpu, or cuda on a machine with a GPU",
        ) from error
    return device


def choose_precision(device: torch.device) -> Precision:
    """Return bf16 where the device multiplies it natively (AVX-512 BF16, AMX, Ampere and later), else fp32."""
    import torch

    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"
    return "fp32"


def keep_freed_memory() -> None:
    """Let this process keep freed memory for reuse, if the C library is glibc.

    By default glibc returns large arrays immediately, and the kernel clears every page of the next one: a cost per
    pixel that grows with the image (44 % more time at 8 megapixels, none below 0.3). The process then keeps its peak
    memory.
    """
    trim_threshold, mmap_max = -1, -4  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX
    library = _glibc()
    if library is not None:
        library.mallopt(trim_threshold, -1)
        library.mallopt(mmap_max, 0)


def return_large_memory() -> None:
    """Let this process return freed blocks of 1 MB and more to the system, if the C library is glibc.

    By default glibc keeps blocks of up to 32 MB after one of that size was freed: a process that passes on large
    answers would keep its peak memory.
    """
    mmap_threshold = -3  # malloc.h: M_MMAP_THRESHOLD
    library = _glibc()
    if library is not None:
        library.mallopt(mmap_threshold, 2**20)


def return_freed_memory() -> None:
    """Return the memory kept by :func:`keep_freed_memory` to the system, for other processes and other array sizes."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
