"""Free memory, so that an image that does not fit is refused before the system kills a process."""

from __future__ import annotations

from pathlib import Path

from cytoray_analysis.errors import ImageTooLargeError

_SMALL = 2**28  # bytes that need no check
_CONTROL_GROUPS = (  # a container's limit and what it uses, of both versions
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


def free_memory() -> int:
    """Return how many bytes this process can still allocate, in the machine and in its container."""
    import psutil

    free = int(psutil.virtual_memory().available)
    for limit, used in _CONTROL_GROUPS:
        if limit.exists() and used.exists() and (most := limit.read_text().strip()).isdecimal():  # not "max"
            free = min(free, int(most) - int(used.read_text()))
    return max(0, free)


def require_memory(size: int, source: str) -> None:
    """Raise if this many bytes are not free.

    Parameters
    ----------
    size
        Required bytes.
    source
        The image's name, for the message.

    Raises
    ------
    ImageTooLargeError
        Fewer are free. A system that overcommits memory would kill this process, or another.
    """
    if size > _SMALL and size > (free := free_memory()):
        raise ImageTooLargeError(
            f"{source} does not fit into memory: it needs {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
            hint="crop it, read it region by region, or use a machine with more memory",
        )
