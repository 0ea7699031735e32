"""Folders of images for jobs, and what became of them."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from cytoray_services.jobs.backend import JobBackend
from cytoray_services.jobs.job import Job as AnyJob
from cytoray_services.jobs.submission import AnySubmission, Submission
from cytoray_services.storage.allowed import Allowed
from cytoray_serving.jobs.request import JobRequest, JobStatus
from cytoray_serving.jobs.store import Job, JobStore, new_id, now
from cytoray_serving.replica.options import ReplicaOptions
from cytoray_serving.schema import ModelAnswered


class Unasked(JobBackend):
    """A backend that a test asks only what it defines itself."""

    def manifest(self, submission: Submission, *, owner: str, team: str | None = None) -> str:
        raise AssertionError("this test expects no such call")

    def submit(self, submission: AnySubmission, *, owner: str, team: str | None = None) -> AnyJob:
        raise AssertionError("this test expects no such call")

    def show(self, job_id: str) -> AnyJob:
        raise AssertionError("this test expects no such call")

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[str]:
        raise AssertionError("this test expects no such call")

    def stop(self, job_id: str) -> AnyJob:
        raise AssertionError("this test expects no such call")

    def list(self) -> list[AnyJob]:
        raise AssertionError("this test expects no such call")


def picture(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint16]:
    """Make an image of coarse patches, in which random networks find objects."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 4000, tuple(side // 8 + 2 for side in shape))
    fine: NDArray[np.uint16] = coarse.repeat(8, 0).repeat(8, 1)[: shape[0], : shape[1]].astype(np.uint16)
    return fine + random.integers(0, 300, shape).astype(np.uint16)


def new_job(**changes: object) -> Job:
    """Make a job of one image folder, with an output of its own, that nothing works on yet."""
    job = Job(
        id=new_id(),
        steps=("nuclei/1",),
        models=(ModelAnswered(name="nuclei", version="1", digest="0"),),
        request=JobRequest(input="file:///in", output=f"file:///out/{secrets.token_hex(4)}"),
        owner="ada",
        created=now(),
        allowed=Allowed(),
        options=ReplicaOptions(),
        movies=False,
        workers=1,
    )
    return job.model_copy(update=changes)


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


def wait_for_end(store: JobStore, job_id: str, *, seconds: float = 240.0) -> JobStatus:
    """Poll a job until it has ended."""
    deadline = time.monotonic() + seconds
    folder = store.find(job_id)
    while not (status := folder.state()).has_ended:
        assert time.monotonic() < deadline, f"{status}\n{folder.log_text()[-6000:]}"
        time.sleep(0.1)
    return status
