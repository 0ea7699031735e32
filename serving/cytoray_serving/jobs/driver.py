"""The driver process of one job: submits tasks to Ray Data and records finished ones.

    python -m cytoray_serving.jobs.driver FOLDER --address HOST:PORT

The driver and its workers may be killed at any time: after a restart it continues with the tasks without a record.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from cytoray_analysis.errors import CytorayError, InputError, PlatformError
from cytoray_services.http.errors import ErrorBody
from cytoray_services.jobs.ray.start import connect_ray
from cytoray_services.settings import Settings, load_settings
from cytoray_services.storage.files import FileLocation
from cytoray_services.storage.locate import locate
from cytoray_serving.jobs import large
from cytoray_serving.jobs.journal import Journal
from cytoray_serving.jobs.plan import plan
from cytoray_serving.jobs.progress import Progress
from cytoray_serving.jobs.store import BUSY, Job, JobFolder, Record
from cytoray_serving.jobs.work import Task, Worker, load_step

log = logging.getLogger(__name__)

_TRIES = 3  # attempts of a task whose worker was lost, before its image counts as failed
_TOGETHER = 4096  # tasks that are passed to Ray Data at a time
_BEAT_SECONDS = 1.0


class _StoppedError(BaseException):
    """The process was asked to end; not an Exception, so that other code does not catch it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Work on a job until it has ended, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--address", required=True, help="address of the Ray cluster")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    signal.signal(signal.SIGTERM, _stop)
    folder = JobFolder(options.folder)
    with folder.lock() as mine:
        if not mine:
            log.info("another driver works on this job")
            return BUSY
        try:
            return _drive(folder, options.address, load_settings())
        except _StoppedError:
            log.info("stopped")
            return 0 if folder.cancelled else 1


def _drive(folder: JobFolder, address: str, settings: Settings) -> int:
    if folder.state().has_ended:
        _tidy_up(folder.job(), folder)
        return 0
    try:
        job, items, records = folder.job(), folder.items(), folder.records()
    except PlatformError as error:  # a damaged record stays damaged
        Progress(folder, [], []).keep("failed", error=ErrorBody(**error.describe()))
        log.error("%s", error)
        return 0
    progress = None
    try:
        _require_models(job, settings)
        if items is None:
            planned = plan(job.request, job.allowed, movies=job.movies, spatial_axes=job.spatial_axes)
            folder.keep_left_out(planned.left_out)  # first, because planning is not repeated once the images are known
            items = planned.items
            folder.keep_items(items)
        progress = Progress(folder, items, records)
        log.info("%d images, of which %d are left", len(items), len(progress.items_to_do()) + len(progress.open_cuts()))
        with _connected(address), _beating(folder, progress), Journal(folder) as journal:
            _work_through(job, settings, progress, journal)
        _tidy_up(job, folder)
        progress.keep("done")
    except InputError as error:  # another attempt would fail in the same way
        _tidy_up(job, folder)
        (progress or Progress(folder, [], [])).keep("failed", error=ErrorBody(**error.describe()))
        log.error("%s", error)
    log.info("ended")
    return 0


def _require_models(job: Job, settings: Settings) -> None:
    """Raise InputError if a model of the job was replaced: no job mixes the answers of two models."""
    for number in range(len(job.steps)):
        with contextlib.suppress(PlatformError):  # the registry does not answer: workers try again
            load_step(job, number, settings)


def _work_through(job: Job, settings: Settings, progress: Progress, journal: Journal) -> None:
    """Do all remaining work: images, then the blocks of large images, then the numbers of their objects."""

    def keep(record: Record) -> None:
        if progress.add(record):
            journal.append([record])

    def work_on(to_do: Callable[[], list[Task]], *, models: bool = True) -> None:
        for attempt in range(_TRIES):
            tasks = to_do()
            last = attempt == _TRIES - 1
            for start in range(0, len(tasks), _TOGETHER):
                for record in _workers(job, settings, tasks[start : start + _TOGETHER], models=models):
                    if last or not record.again:
                        keep(record)
                        _tell(record, progress)
        for task in to_do():
            lost = PlatformError(f"its worker was lost {_TRIES} times", hint="it may need more memory than available")
            keep(Record(kind="failed", item=task.item.index, error=ErrorBody(**lost.describe())))

    work_on(progress.items_to_do)
    work_on(progress.blocks_to_do)
    for index, cut in progress.open_cuts():
        if cut.numbers and not progress.is_numbered(index):
            log.info(
                "%s: %d objects",
                progress.items[index].uri,
                large.collect_objects(job, progress.items[index], cut.blocks),
            )
    work_on(progress.numbers_to_do, models=False)
    for index, cut in progress.open_cuts():
        item = progress.items[index]
        objects = len(large.known_objects(job, item)) - 1 if cut.numbers else 0
        written = large.publish(job, item)
        done = Record(kind="done", item=index, output=written.uri, objects=objects, megapixels=cut.megapixels)
        keep(done.model_copy(update={"warnings": cut.warnings}))


def _workers(job: Job, settings: Settings, tasks: list[Task], *, models: bool) -> Iterator[Record]:
    """Yield the records of finished tasks in any order; lost tasks have no record."""
    import ray.data
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1  # lost tasks are the missing ones, and are retried
    workers = min(job.workers, len(tasks))
    rows = ray.data.from_items([{"task": task.model_dump_json()} for task in tasks], override_num_blocks=len(tasks))
    answered = rows.map_batches(
        RayWorker,
        fn_constructor_args=(job, settings, models),
        batch_size=1,
        compute=ActorPoolStrategy(min_size=1, max_size=workers, max_tasks_in_flight_per_actor=2),
        num_cpus=job.cpus_per_worker,
        num_gpus=job.gpus_per_worker if models else 0,
        max_task_retries=_TRIES,
    )
    for batch in answered.iter_batches(batch_size=None, prefetch_batches=0):
        for text in batch["record"]:
            yield Record.model_validate_json(text)


class RayWorker:
    """A :class:`Worker` for Ray Data, with batches of one."""

    def __init__(self, job: Job, settings: Settings, models: bool) -> None:
        self._worker = Worker(job, settings, models=models)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do the tasks of a batch; on return their answers are on disk."""
        records = [self._worker.work(Task.model_validate_json(text)) for text in batch["task"]]
        self._worker.settle()
        return {"record": [record.model_dump_json() for record in records]}


@contextlib.contextmanager
def _connected(address: str) -> Iterator[None]:
    """Connect to a Ray cluster for this context."""
    import ray

    # A cluster on the loopback address does not know this machine by another address.
    host = address.rpartition(":")[0]
    local = host if host == "127.0.0.1" else None
    connect_ray(address, log_to_driver=True, logging_level=logging.WARNING, _node_ip_address=local)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _beating(folder: JobFolder, progress: Progress) -> Iterator[None]:
    """Write the status of the job every second; end this process with the job, or with its parent process."""
    ended = threading.Event()
    parent = os.getppid()

    def beat() -> None:
        while True:
            cancelled = folder.cancelled
            try:
                progress.keep("cancelled" if cancelled else "running")
            except OSError as error:  # requests to cancel also work with a full disk
                log.warning("the status of the job cannot be written: %s", error)
            if cancelled or os.getppid() != parent:  # the next parent starts its own driver
                os.kill(os.getpid(), signal.SIGTERM)
                return
            if ended.wait(_BEAT_SECONDS):
                return

    thread = threading.Thread(target=beat, name="beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _tidy_up(job: Job, folder: JobFolder) -> None:
    """Remove temporary files from the output, before the job counts as ended; failures are logged."""
    try:
        large.remove_scratch(job)
        output = locate(job.request.output, job.allowed, field="output")
        names = tuple(f".{item.name}." for item in folder.items() or [])
        if isinstance(output, FileLocation) and names and output.exists():
            output.remove_drafts(names)
    except CytorayError as error:  # the answers are complete
        log.warning("temporary files stay at the output: %s", error)


def _tell(record: Record, progress: Progress) -> None:
    uri = progress.items[record.item].uri
    if record.error is not None:
        log.warning("%s: %s: %s", uri, record.error.error, record.error.message)
    for warning in record.warnings:
        log.warning("%s: %s", uri, warning)


def _stop(number: int, frame: FrameType | None) -> None:
    raise _StoppedError


if __name__ == "__main__":
    sys.exit(main())
