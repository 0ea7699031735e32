"""Jobs on a full disk, or whose process was killed: one at a time has an output, and each can be cancelled."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from cytoray_analysis.errors import RequestError
from cytoray_serving.jobs.request import JobRequest
from cytoray_serving.jobs.store import Job, JobStore
from job_samples import new_job
from small_disks import fill, small_disk


def job_to(output: str) -> Job:
    return new_job(request=JobRequest(input="file:///in", output=output))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 256):
        yield tmp_path / "disk"


def test_a_job_is_cancelled_although_the_disk_is_full(disk: Path) -> None:
    store, job = JobStore(disk / "jobs"), job_to("file:///out/a")
    store.create(job)
    fill(disk)
    store.find(job.id).cancel()
    assert store.find(job.id).state().state == "cancelled"


def test_a_job_that_finds_no_room_takes_nothing_and_leaves_nothing(disk: Path) -> None:
    store = JobStore(disk / "jobs")
    store.create(job_to("file:///out/b"))
    filling = fill(disk)
    with pytest.raises(OSError, match="No space left"):
        store.create(job_to("file:///out/a"))
    filling.unlink()
    assert len(store.states().jobs) == 1
    assert [path.name for path in (disk / "jobs").iterdir() if path.name.startswith(".job")] == []
    store.create(job_to("file:///out/a"))
    assert len(store.states().jobs) == 2


@pytest.mark.parametrize("step", ["before", "after"])
def test_killed_while_a_job_is_kept_no_output_is_taken_twice(tmp_path: Path, step: str) -> None:
    """Whatever is there afterwards: a second job to its output is refused where the first is kept, and else taken."""
    store, first = JobStore(tmp_path / "jobs"), job_to("file:///out/a")
    child = os.fork()
    if child == 0:
        module: Any = import_module("cytoray_serving.jobs.store")
        move = module.replace_whole

        def dying(draft: Path, path: Path) -> None:
            if step == "after":
                move(draft, path)
            os.kill(os.getpid(), signal.SIGKILL)

        module.replace_whole = dying
        store.create(first)
    os.waitpid(child, 0)
    assert len(store.states().jobs) == (1 if step == "after" else 0)
    if step == "after":
        with pytest.raises(RequestError, match=r"which .* writes to"):
            store.create(job_to("file:///out/a"))
    else:
        store.create(job_to("file:///out/a"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("file:///out/a", "file://localhost/out//a/"),
        ("file:///out/a", "file:///out/%61"),
        ("file:///out/a", "file:///out/./a"),
        ("s3://bucket/out/a", "s3://bucket/out/a//"),
        ("s3://bucket/out/a", "s3://bucket/out/%61"),
    ],
)
def test_an_output_is_one_however_it_is_spelt(tmp_path: Path, first: str, second: str) -> None:
    store = JobStore(tmp_path / "jobs")
    store.create(job_to(first))
    with pytest.raises(RequestError, match=r"which .* writes to"):
        store.create(job_to(second))


def test_an_output_is_one_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    store = JobStore(tmp_path / "jobs")
    store.create(job_to((tmp_path / "out" / "a").as_uri()))
    with pytest.raises(RequestError, match=r"which .* writes to"):
        store.create(job_to((tmp_path / "link" / "a").as_uri()))
