"""Jobs on disk: a folder each, which tells a new process everything that the last one knew.

Only the owner of the service may read it: a job names its owner and the places of his images.

======================  ==========================================================================================
``job.json``            what is to be done; written once
``items.json``          the images, in order; written once
``records.jsonl``       a line for every piece of work that is finished, on disk before the next one counts
``state.json``          where the job stands; replaced whole
``cancelled``           there when somebody asked to stop
``driver.log``          what the processes said
``lock``                held by the one driver that works on the job
======================  ==========================================================================================
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, TypeAdapter

from cytoray_analysis.answer_warnings import Warnings
from cytoray_analysis.errors import JobNotFoundError, PlatformError, RequestError
from cytoray_analysis.files import open_private, write_whole
from cytoray_services.http_errors import ErrorBody
from cytoray_services.records import reading
from cytoray_serving.downloads import without_secrets
from cytoray_serving.jobs.request import SHOWN_LEFT_OUT, DamagedJob, JobList, JobRequest, JobStatus, LeftOutItem
from cytoray_serving.places import Allowed
from cytoray_serving.replica import ReplicaOptions
from cytoray_serving.schema import ModelAnswered

log = logging.getLogger(__name__)

_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
_OUTPUTS = ".outputs"  # beside the jobs: for each output the last job that took it
_LOG_BYTES = 2**20  # of the end of a log that are shown


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Job(_Frozen):
    """What is to be done.

    Attributes
    ----------
    id
        Unguessable.
    steps
        References of the models that work one after the other: exact versions, or bundle folders.
    models
        The same, as answers name them.
    request, owner, created
        Who asked for what, and when.
    allowed
        The places that it may read and write.
    options
        How each worker runs the models.
    movies
        Whether the last model takes movies.
    spatial_axes
        Of what the last model looks at; of movies those of a frame.
    workers
        Processes at most.
    cpus_per_worker, gpus_per_worker
        Cores and cards (or a share of one) that each holds of its node.
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


class Item(_Frozen):
    """One image of a job.

    Attributes
    ----------
    index
        Its place among all.
    uri
        The image, or the folder of a movie's frames.
    name
        Of its answer, without a suffix; no two items have the same.
    masks
        URI of its objects; None where none are told.
    alone
        Whether it is the only item.
    series
        Which image of the file; None for the one that the job's request means.
    """

    index: int
    uri: str
    name: str
    masks: str | None = None
    alone: bool = False
    series: str | None = None


class Record(_Frozen):
    """A piece of work that is finished.

    Attributes
    ----------
    kind
        ``done`` or ``failed`` end an item. An image too large for memory is ``cut`` first; then each ``block`` is
        answered, and ``numbered`` where the numbers of its objects are those of the whole image.
    item, block
        What it is about.
    core, blocks, numbers
        Of an item that is cut: the size of its blocks, how many there are, and whether they number objects.
    output
        URI of the answer.
    error
        Why an item failed; `again` says that another try may succeed.
    memory
        Most bytes that the worker has held so far.
    warnings
        Of the answer of an item: of the record that ends it, or of that which cuts it.
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
        """Return what is to be done."""
        with reading(self.path / "job.json", "what a job is to do"):
            return Job.model_validate_json((self.path / "job.json").read_bytes())

    def items(self) -> list[Item] | None:
        """Return the images; None until they are counted."""
        path = self.path / "items.json"
        with reading(path, "the images of a job"):
            return _ITEMS.validate_json(path.read_bytes()) if path.exists() else None

    def keep_items(self, items: list[Item]) -> None:
        """Write down the images, once for all drivers that may follow."""
        write_whole(self.path / "items.json", _ITEMS.dump_json(items), private=True)

    def keep_left_out(self, left_out: list[LeftOutItem]) -> None:
        """Write down what of the folder of the images is not answered."""
        changes = {"items_left_out": len(left_out), "left_out": left_out[:SHOWN_LEFT_OUT]}
        self.keep_state(self.state().model_copy(update=changes))

    def state(self) -> JobStatus:
        """Return where the job stands."""
        with reading(self.path / "state.json", "where a job stands"):
            status = JobStatus.model_validate_json((self.path / "state.json").read_bytes())
            if status.id != self.path.name.removeprefix("."):
                raise ValueError(f"it is that of {status.id}")
        if self.cancelled and not status.has_ended:
            asked = datetime.fromtimestamp((self.path / "cancelled").stat().st_mtime, UTC)
            return status.model_copy(update={"state": "cancelled", "ended": asked, "updated": asked})
        return status

    def keep_state(self, status: JobStatus) -> None:
        """Write down where the job stands."""
        write_whole(self.path / "state.json", status.model_dump_json(), private=True)

    def records(self) -> list[Record]:
        """Return what is finished; a line that was being written when its process was killed is none."""
        path = self.path / "records.jsonl"
        if not path.exists():
            return []
        records = []
        with reading(path, "what is finished of a job"):
            *lines, _ = path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, 1):
            with reading(f"{path}, line {number}", "a piece of work that is finished"):
                records.append(Record.model_validate_json(line))
        return records

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked to stop."""
        return (self.path / "cancelled").exists()

    def cancel(self) -> None:
        """Ask to stop; whoever works on the job sees it within a second."""
        (self.path / "cancelled").touch()

    @property
    def log(self) -> Path:
        """What the processes said."""
        return self.path / "driver.log"

    def log_text(self) -> str:
        """Return the end of the log."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - _LOG_BYTES))
            return file.read().decode(errors="replace")

    @contextlib.contextmanager
    def lock(self) -> Iterator[bool]:
        """Hold the job, unless another process does; says which."""
        with (self.path / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True


class Journal:
    """Appends records to a job's folder; what was appended survives the death of the process and of the machine."""

    def __init__(self, folder: JobFolder) -> None:
        path = folder.path / "records.jsonl"
        self._file = open_private(path)
        whole = path.read_bytes().rfind(b"\n") + 1
        self._file.truncate(whole)  # what a killed process left of its last line

    def append(self, records: Iterable[Record]) -> None:
        """Append records; they are on disk when this returns."""
        self._file.write(b"".join(record.model_dump_json(exclude_defaults=True).encode() + b"\n" for record in records))
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class JobStore:
    """All jobs of a service, as folders of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._damaged: set[Path] = set()

    def create(self, job: Job) -> JobStatus:
        """Keep a new job; it is there as a whole or not at all.

        Raises
        ------
        RequestError
            Another job, which has not ended, writes to the same output; also one that is kept in the same instant.
        """
        status = JobStatus(
            id=job.id,
            owner=job.owner,
            models=list(job.models),
            request=job.request,
            state="queued",
            created=job.created,
            updated=job.created,
        )
        draft = JobFolder(self.folder / f".{job.id}")
        with self._holding_output(job):
            draft.path.mkdir(mode=0o700)
            write_whole(draft.path / "job.json", job.model_dump_json(), private=True)
            draft.keep_state(status)
            draft.path.rename(self.folder / job.id)
        return status

    @contextlib.contextmanager
    def _holding_output(self, job: Job) -> Iterator[None]:
        """Note that a job writes to its output, once it is kept; others wait meanwhile."""
        holders = self.folder / _OUTPUTS
        holders.mkdir(parents=True, exist_ok=True, mode=0o700)
        holder = holders / hashlib.sha256(job.request.output.rstrip("/").encode()).hexdigest()
        with (holders / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            other = self.folder / holder.read_text(encoding="ascii") if holder.exists() else None
            if other is not None and other.is_dir():
                state = self.readable_state(JobFolder(other))
                if isinstance(state, PlatformError) or not state.has_ended:
                    raise RequestError(
                        f"expected an output of its own, got {without_secrets(job.request.output)}, which {other.name} "
                        "writes to",
                        field="output",
                        hint="name another folder, or wait until that job has ended",
                    )
            yield
            write_whole(holder, job.id, private=True)

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
                f"there is no job {job_id[:64]!r}", field="id", hint="GET /jobs and cytoray jobs list show all"
            )
        return JobFolder(folder)

    def folders(self) -> list[JobFolder]:
        """Return the folders of all jobs, in no order."""
        if not self.folder.is_dir():
            return []
        return [JobFolder(path) for path in self.folder.iterdir() if _ID.fullmatch(path.name) and path.is_dir()]

    def states(self) -> JobList:
        """Return where all jobs stand, the newest first, and which are damaged."""
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
        """Return where a job stands; where its folder is damaged the error, with one warning in the log."""
        try:
            status = folder.state()
        except PlatformError as error:
            if folder.path not in self._damaged:  # a service looks every second
                log.warning("a job is damaged: %s", error)
            self._damaged.add(folder.path)
            return error
        self._damaged.discard(folder.path)
        return status


def new_id() -> str:
    """Return an unguessable name for a job, fit for addresses and folders."""
    return "job-" + secrets.token_hex(12)


def now() -> datetime:
    """Return the time, with its zone."""
    return datetime.now(UTC)
