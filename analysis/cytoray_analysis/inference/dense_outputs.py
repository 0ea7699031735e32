"""A place for the dense outputs of an image: in memory while they are small, else in a file."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import PlatformError

View = Callable[[], NDArray[np.float32]]


@contextmanager
def dense_outputs(shape: tuple[int, ...], *, in_memory: int, folder: Path | None = None) -> Iterator[View]:
    """Give a place for outputs that ends with this context.

    Parameters
    ----------
    shape
        (channels, spatial…).
    in_memory
        Bytes up to which they are kept in memory.
    folder
        Where the file goes; the system's folder for temporary files by default.

    Yields
    ------
    Callable
        Returns the array, float32. Of a file it is a new mapping at every call: pages that were touched leave memory
        with it.

    Raises
    ------
    PlatformError
        The file would not fit on its disk.
    """
    size = 4 * math.prod(shape)
    if size <= in_memory:
        array = np.empty(shape, np.float32)
        yield lambda: array
        return
    with tempfile.TemporaryDirectory(prefix=".cytoray-outputs-", dir=folder) as place:
        free = shutil.disk_usage(place).free
        if size > free:
            raise PlatformError(
                f"expected {size / 2**30:.1f} GiB of free disk at {Path(place).parent}, got {free / 2**30:.1f}",
                field="TMPDIR" if folder is None else str(folder),
                hint="dense outputs of large images are stored in a file during decoding: free some disk space",
            )
        path = Path(place) / "outputs"
        yield lambda: np.memmap(path, np.float32, "r+" if path.exists() else "w+", shape=shape)
