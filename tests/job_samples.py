"""Folders of images for jobs, and what became of them."""

from __future__ import annotations

import asyncio
import hashlib
import time
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from cytoray_serving.jobs.request import JobStatus
from cytoray_serving.jobs.service import JobService


def picture(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint16]:
    """Make an image of coarse patches, in which random networks find objects."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 4000, tuple(side // 8 + 2 for side in shape))
    fine: NDArray[np.uint16] = coarse.repeat(8, 0).repeat(8, 1)[: shape[0], : shape[1]].astype(np.uint16)
    return fine + random.integers(0, 300, shape).astype(np.uint16)


def write_images(folder: Path, count: int, *, side: int = 64) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        tifffile.imwrite(folder / f"field{number:04d}.tif", picture((side, side), number))
    return folder


def checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def wait_for_end(service: JobService, job_id: str, *, seconds: float = 240.0) -> JobStatus:
    """Poll a job until it has ended."""
    deadline = time.monotonic() + seconds
    while not (status := asyncio.run(service.show(job_id))).has_ended:
        assert time.monotonic() < deadline, f"{status}\n{asyncio.run(service.logs(job_id))[-6000:]}"
        time.sleep(0.1)
    return status
