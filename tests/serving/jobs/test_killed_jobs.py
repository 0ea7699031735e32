"""Jobs on a Ray cluster, whose processes are killed: nothing is lost and nothing is there twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.errors import JobNotFoundError
from cytoray_analysis.images import read_image
from cytoray_analysis.predictor import Predictor
from cytoray_services.settings import load_settings
from cytoray_services.storage.allowed import Allowed
from cytoray_services.tokens.access import Caller
from cytoray_serving.jobs.drivers import Drivers
from cytoray_serving.jobs.request import JobRequest, JobStatus
from cytoray_serving.jobs.store import JobStore
from cytoray_serving.jobs.taking import JobTaker
from cytoray_serving.replica.options import ReplicaOptions
from cytoray_serving.service.config import JobsConfig, ServiceConfig
from job_samples import checksums, picture, wait_for_end, write_images
from serving_samples import tiff_bytes

pytestmark = pytest.mark.ray


@pytest.fixture
def new_service(ray_cluster: None, tmp_path: Path) -> Iterator[Callable[..., JobTaker]]:
    """Give the function that starts drivers and returns what takes jobs; all of one test share their jobs.

    What was started before ends.
    """
    import ray

    address = ray.get_runtime_context().gcs_address
    started: list[Drivers] = []

    def start(**jobs: Any) -> JobTaker:
        for before in started:
            before.close()
        settings = load_settings({"CYTORAY_HOME": str(tmp_path / "home")})
        config = ServiceConfig(allowed=Allowed(roots=(tmp_path,)), jobs=JobsConfig(**jobs))
        taker = JobTaker(JobStore(tmp_path / "jobs"), settings, config)
        started[:] = [Drivers(taker.store, settings, address)]
        started[0].start()
        return taker

    yield start
    for one in started:
        one.close()


def submit(taker: JobTaker, model: Path, source: Path, target: Path, **fields: Any) -> JobStatus:
    request = JobRequest(input=source.as_uri(), output=target.as_uri(), **fields)
    return taker.take((str(model),), request, Caller("ada", ("submit",)))


def processes_of(status: JobStatus, tmp_path: Path) -> tuple[psutil.Process, list[psutil.Process]]:
    """Return the driver of a job, and the workers of the cluster of this process."""
    drivers = [one for one in psutil.process_iter(["cmdline"]) if status.id in " ".join(one.info["cmdline"] or ())]
    workers = []
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "RayWorker" in " ".join(one.cmdline()) and one.status() != psutil.STATUS_ZOMBIE:
                workers.append(one)
    return drivers[0], workers


def wait_for_records(tmp_path: Path, job_id: str, count: int) -> None:
    """Wait until a job has written down so many pieces of work."""
    folder = JobStore(tmp_path / "jobs").find(job_id)
    deadline = time.monotonic() + 240
    while len(folder.records()) < count:
        assert time.monotonic() < deadline, folder.log_text()[-6000:]
        time.sleep(0.02)


def test_a_folder_of_images_is_answered_and_a_bad_one_among_them_is_reported(
    new_service: Callable[..., JobTaker], bundle_folder: Path, tmp_path: Path
) -> None:
    source = write_images(tmp_path / "in", 6)
    (source / "field0003.tif").write_bytes(b"these are no pixels")
    (source / "notes.txt").write_text("not an image")
    service = new_service()
    status = submit(service, bundle_folder, source, tmp_path / "out")
    assert (status.state, status.owner, status.models[0].name) == ("queued", "ada", "nuclei")
    ended = wait_for_end(service.store, status.id)
    assert (ended.state, ended.items_total, ended.items_done, ended.items_failed) == ("done", 6, 5, 1)
    assert [error.error for error in ended.errors] == ["UnreadableImageError"]
    assert ended.errors[0].item.endswith("field0003.tif")
    assert ended.megapixels == pytest.approx(5 * 64 * 64 / 1e6)
    assert sorted(checksums(tmp_path / "out")) == [f"field000{number}.tif" for number in (0, 1, 2, 4, 5)]
    assert [one.id for one in service.store.states().jobs] == [status.id]
    assert "field0003" in service.store.find(status.id).log_text()


@pytest.mark.long
def test_killed_three_times_a_job_gives_every_answer_once_and_the_same(
    new_service: Callable[..., JobTaker], bundle_folder: Path, tmp_path: Path
) -> None:
    source = write_images(tmp_path / "in", 60, side=256)
    service = new_service(workers=2)
    quiet = submit(service, bundle_folder, source, tmp_path / "quiet", format="json")
    assert wait_for_end(service.store, quiet.id).items_done == 60

    killed = submit(service, bundle_folder, source, tmp_path / "killed", format="json")
    for number, done in enumerate((5, 20, 35)):
        wait_for_records(tmp_path, killed.id, done)
        driver, workers = processes_of(killed, tmp_path)
        victim = workers[0] if number == 1 else driver
        os.kill(victim.pid, signal.SIGKILL)
    ended = wait_for_end(service.store, killed.id)
    assert (ended.state, ended.items_done, ended.items_failed) == ("done", 60, 0)
    assert checksums(tmp_path / "killed") == checksums(tmp_path / "quiet")
    records = JobStore(tmp_path / "jobs").find(killed.id).records()
    assert sorted(record.item for record in records) == list(range(60))


def test_a_new_service_goes_on_where_the_old_one_was_killed(
    new_service: Callable[..., JobTaker], bundle_folder: Path, tmp_path: Path
) -> None:
    source = write_images(tmp_path / "in", 40, side=256)
    service = new_service(workers=1)
    status = submit(service, bundle_folder, source, tmp_path / "out")
    wait_for_records(tmp_path, status.id, 2)
    after = new_service()
    assert 2 <= len(JobStore(tmp_path / "jobs").find(status.id).records()) < 40
    assert wait_for_end(after.store, status.id).items_done == 40
    assert len(checksums(tmp_path / "out")) == 40


def test_a_cancelled_job_stops_and_keeps_what_it_has(
    new_service: Callable[..., JobTaker], bundle_folder: Path, tmp_path: Path
) -> None:
    source = write_images(tmp_path / "in", 200, side=256)
    service = new_service()
    status = submit(service, bundle_folder, source, tmp_path / "out")
    wait_for_records(tmp_path, status.id, 1)
    stopped = service.store.find(status.id).stop()
    assert stopped.state == "cancelled"
    deadline = time.monotonic() + 60
    while [one for one in psutil.process_iter(["cmdline"]) if status.id in " ".join(one.info["cmdline"] or ())]:
        assert time.monotonic() < deadline, "the driver goes on"
        time.sleep(0.2)
    there = checksums(tmp_path / "out")
    assert 1 <= len(there) < 200
    assert all(name.startswith("field") for name in there)
    assert service.store.find(status.id).stop().state == "cancelled"
    with pytest.raises(JobNotFoundError):
        service.store.find("job-000000000000")


@pytest.mark.long
def test_an_image_too_large_for_memory_gets_the_objects_of_the_whole(
    new_service: Callable[..., JobTaker], bundle_folder: Path, tmp_path: Path
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "large.tif").write_bytes(tiff_bytes(picture((2100, 2300))))
    (source / "small.tif").write_bytes(tiff_bytes(picture((64, 64))))
    whole = Predictor(Bundle.load(bundle_folder), precision="fp32").predict(read_image(source / "large.tif"))
    service = new_service(run=ReplicaOptions(memory_budget=2**24, precision="fp32"))
    status = submit(service, bundle_folder, source, tmp_path / "out")
    wait_for_records(tmp_path, status.id, 4)  # the small image, how the large one is cut, two blocks
    os.kill(processes_of(status, tmp_path)[0].pid, signal.SIGKILL)
    ended = wait_for_end(service.store, status.id)
    assert (ended.items_done, ended.items_failed) == (2, 0), ended.errors
    assert ended.blocks_done == ended.blocks_total >= 8
    labels = read_image(tmp_path / "out" / "large.ome.zarr").read()
    assert int(labels.max()) == whole.objects > 0
    assert (labels != whole.answer).mean() < 1e-4
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["large.ome.zarr", "small.tif"]
