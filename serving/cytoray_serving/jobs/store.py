"""Jobs on disk: one folder per job with its full state, so that a new process can continue.

Only the user of the service may read it: a job contains its owner and the locations of the images.

======================  ==========================================================================================
``job.json``            the job; written once
``items.json``          the images, in order; written once
``records.jsonl``       a line for every finished task, on disk before the next one counts
``state.json``          the status; replaced as a whole
``cancelled``           exists after a request to stop
``driver.log``          the log of the processes
``lock``                held by the driver of the job
======================  ==========================================================================================
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, TypeAdapter

from cytoray_analysis.answer_warnings import Warnings
from cytoray_analysis.errors import JobNotFoundError, PlatformError, RequestError
from cytoray_analysis.files import replace_whole, write_whole
from cytoray_analysis.uris import without_secrets
from cytoray_services.http.errors import ErrorBody
from cytoray_services.locks import locked, locked_if_free
from cytoray_services.records import reading
from cytoray_services.storage.allowed import Allowed
from cytoray_serving.jobs.request import SHOWN_LEFT_OUT, DamagedJob, JobList, JobRequest, JobStatus, LeftOutItem
from cytoray_serving.replica.options import ReplicaOptions
from cytoray_serving.schema import ModelAnswered

log = logging.getLogger(__name__)

_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
_OUTPUTS = ".outputs"  # next to the jobs: the last job of each output
_LOG_BYTES = 2**20  # shown end of a log

BUSY = 75  # exit status of a driver if another one works on its job


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Job(_Frozen):
    """A job.

    Attributes
    ----------
    id
        Unguessable.
    steps
        References of the models in order: exact versions, or bundle folders.
    models
        The same models, as named in answers.
    request, owner, created
        The request, its owner and its time.
    team
        Team of the job; None for the owner only.
    allowed
        The locations that it may read and write.
    options
        Options of the models in each worker.
    movies
        Whether the last model takes movies.
    spatial_axes
        Spatial axes of the last model; of a frame for movies.
    workers
        Maximum number of worker processes.
    cpus_per_worker, gpus_per_worker
        Cores and GPUs (or a share of one) of each worker.
    """

    id: str
    steps: tuple[str, ...]
    models: tuple[ModelAnswered, ...]
    request: JobRequest
    owner: str
    created: datetime
    allowed: Allowed
    options: ReplicaOptions
    movies: bool
    workers: int
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    spatial_axes: str = "YX"
    team: str | None = None


class Item(_Frozen):
    """One image of a job.

    Attributes
    ----------
    index
        Index of the image.
    uri
        The image, or the folder of a movie's frames.
    name
        Unique name of its answer, without a suffix.
    masks
        URI of its masks; None if not given.
    alone
        Whether it is the only item.
    series
        Series of the file; None for the series of the request.
    """

    index: int
    uri: str
    name: str
    masks: str | None = None
    alone: bool = False
    series: str | None = None


class Record(_Frozen):
    """The record of a finished task.

    Attributes
    ----------
    kind
        ``done`` or ``failed`` end an item. An image too large for memory is ``cut`` first; then each ``block`` is
        processed, and ``numbered`` when its objects have their final numbers.
    item, block
        The item and block of the task.
    core, blocks, numbers
        For a cut item: the size of its blocks, their number, and whether they number objects.
    output
        URI of the answer.
    error
        Error of a failed item; `again` if a retry may succeed.
    memory
        Peak memory of the worker so far, in bytes.
    warnings
        Warnings of the answer, in the record that ends or cuts the item.
    """

    kind: Literal["done", "failed", "cut", "block", "numbered"]
    item: int
    block: int | None = None
    core: tuple[int, ...] | None = None
    blocks: int = 0
    numbers: bool = False
    output: str | None = None
    objects: int = 0
    megapixels: float = 0.0
    seconds: float = 0.0
    memory: int = 0
    warnings: Warnings = ()
    error: ErrorBody | None = None
    again: bool = False


_ITEMS: TypeAdapter[list[Item]] = TypeAdapter(list[Item])


class JobFolder:
    """The files of one job."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def job(self) -> Job:
        """Return the job."""
        with reading(self.path / "job.json", "the description of a job"):
            return Job.model_validate_json((self.path / "job.json").read_bytes())

    def items(self) -> list[Item] | None:
        """Return the images; None until they are counted."""
        path = self.path / "items.json"
        with reading(path, "the images of a job"):
            return _ITEMS.validate_json(path.read_bytes()) if path.exists() else None

    def keep_items(self, items: list[Item]) -> None:
        """Write the images once, for this and later drivers."""
        write_whole(self.path / "items.json", _ITEMS.dump_json(items), private=True)

    def keep_left_out(self, left_out: list[LeftOutItem]) -> None:
        """Write the list of what is left out of the input folder."""
        changes = {"items_left_out": len(left_out), "left_out": left_out[:SHOWN_LEFT_OUT]}
        self.keep_state(self.state().model_copy(update=changes))

    def state(self) -> JobStatus:
        """Return the status of the job."""
        with reading(self.path / "state.json", "the status of a job"):
            status = JobStatus.model_validate_json((self.path / "state.json").read_bytes())
            if status.id != self.path.name.removeprefix("."):
                raise ValueError(f"it is the status of {status.id}")
        if self.cancelled and not status.has_ended:
            asked = datetime.fromtimestamp((self.path / "cancelled").stat().st_mtime, UTC)
            return status.model_copy(update={"state": "cancelled", "ended": asked, "updated": asked})
        return status

    def keep_state(self, status: JobStatus) -> None:
        """Write the status of the job."""
        write_whole(self.path / "state.json", status.model_dump_json(), private=True)

    def records(self) -> list[Record]:
        """Return the records of finished tasks, without a partial last line of a killed process."""
        path = self.path / "records.jsonl"
        if not path.exists():
            return []
        records = []
        with reading(path, "the records of a job"):
            *lines, _ = path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, 1):
            with reading(f"{path}, line {number}", "the record of a task"):
                records.append(Record.model_validate_json(line))
        return records

    @property
    def cancelled(self) -> bool:
        """Whether a stop was requested."""
        return (self.path / "cancelled").exists()

    def cancel(self) -> None:
        """Request a stop; the driver reacts within a second."""
        (self.path / "cancelled").touch()

    def stop(self) -> JobStatus:
        """Request a stop unless the job has ended, and return its status."""
        if not self.state().has_ended:
            self.cancel()
        return self.state()

    @property
    def log(self) -> Path:
        """Path of the log."""
        return self.path / "driver.log"

    def log_text(self) -> str:
        """Return the end of the log."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - _LOG_BYTES))
            return without_secrets(file.read().decode(errors="replace"))

    def lock(self) -> contextlib.AbstractContextManager[bool]:
        """Lock the job, and yield whether this succeeded."""
        return locked_if_free(self.path / "lock")


class JobStore:
    """All jobs of a service, as folders of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._damaged: set[Path] = set()

    def create(self, job: Job, *, admit: Callable[[], None] = lambda: None) -> JobStatus:
        """Save a new job in one step.

        Parameters
        ----------
        admit
            Called first, under a lock; raises if the job may not be added.

        Raises
        ------
        RequestError
            Another unfinished job writes to the same output, also one that is saved at the same time.
        """
        status = JobStatus(
            id=job.id,
            owner=job.owner,
            team=job.team,
            models=list(job.models),
            request=job.request,
            state="queued",
            created=job.created,
            updated=job.created,
        )
        draft = JobFolder(self.folder / f".{job.id}")
        with self._holding_output(job, admit):
            try:
                draft.path.mkdir(mode=0o700)
                write_whole(draft.path / "job.json", job.model_dump_json(), private=True)
                draft.keep_state(status)
                replace_whole(draft.path, self.folder / job.id)
            except BaseException:
                shutil.rmtree(draft.path, ignore_errors=True)
                raise
        return status

    @contextlib.contextmanager
    def output_holder(self, output: str) -> Iterator[Path]:
        """Yield the file with the name of the last job of an output, under a lock."""
        holders = self.folder / _OUTPUTS
        holders.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(holders / "lock"):
            yield holders / hashlib.sha256(_one_spelling(output).encode()).hexdigest()

    @contextlib.contextmanager
    def _holding_output(self, job: Job, admit: Callable[[], None]) -> Iterator[None]:
        """Reserve the output of a job before it is saved, under a lock.

        A reservation of a job that was not saved, after a crash or with a full disk, does not block other jobs.
        """
        with self.output_holder(job.request.output) as holder:
            admit()
            other = self.folder / holder.read_text(encoding="ascii") if holder.exists() else None
            if other is not None and other.is_dir():
                state = self.readable_state(JobFolder(other))
                if isinstance(state, PlatformError) or not state.has_ended:
                    raise RequestError(
                        f"expected an output of its own, got {job.request.output}, which {other.name} writes to",
                        field="output",
                        hint="name another folder, or wait until that job has ended",
                    )
            write_whole(holder, job.id, private=True)
            yield

    def find(self, job_id: str) -> JobFolder:
        """Return the folder of a job.

        Raises
        ------
        JobNotFoundError
            There is no such job.
        """
        folder = self.folder / job_id
        if not _ID.fullmatch(job_id) or not folder.is_dir():
            raise JobNotFoundError(
                f"there is no job {job_id[:64]!r}", field="id", hint="use GET /jobs or cytoray jobs list to list all"
            )
        return JobFolder(folder)

    def folders(self) -> list[JobFolder]:
        """Return the folders of all jobs, unordered."""
        if not self.folder.is_dir():
            return []
        return [JobFolder(path) for path in self.folder.iterdir() if _ID.fullmatch(path.name) and path.is_dir()]

    def states(self) -> JobList:
        """Return the status of all jobs, newest first, and the damaged ones."""
        found: list[JobStatus] = []
        damaged: list[DamagedJob] = []
        for folder in self.folders():
            state = self.readable_state(folder)
            if isinstance(state, PlatformError):
                error = ErrorBody.model_validate(state.describe())
                damaged.append(DamagedJob(id=folder.path.name, error=error))
            else:
                found.append(state)
        return JobList(
            jobs=sorted(found, key=lambda status: (status.created, status.id), reverse=True),
            damaged=sorted(damaged, key=lambda one: one.id),
        )

    def readable_state(self, folder: JobFolder) -> JobStatus | PlatformError:
        """Return the status of a job, or the error of a damaged folder, with one warning in the log."""
        try:
            status = folder.state()
        except PlatformError as error:
            if folder.path not in self._damaged:  # a service reads it every second
                log.warning("a job is damaged: %s", error)
            self._damaged.add(folder.path)
            return error
        self._damaged.discard(folder.path)
        return status


def _one_spelling(uri: str) -> str:
    """Return the same URI for all spellings of a location: links, escapes, double and trailing slashes."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(os.path.realpath(unquote(parts.path))).as_uri()
    path = "/".join(part for part in unquote(parts.path).split("/") if part)
    return f"{parts.scheme}://{parts.netloc}/{path}"


def new_id() -> str:
    """Return an unguessable name for a job, valid in addresses and as a folder."""
    return "job-" + secrets.token_hex(12)


def now() -> datetime:
    """Return the current time with its time zone."""
    return datetime.now(UTC)
