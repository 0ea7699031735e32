"""Jobs on disk: a folder each, which tells a new process everything that the last one knew.

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
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from cytoray_analysis.errors import JobNotFoundError
from cytoray_analysis.files import write_whole
from cytoray_services.http_errors import ErrorBody
from cytoray_serving.jobs.request import JobRequest, JobStatus
from cytoray_serving.places import Allowed
from cytoray_serving.replica import ReplicaOptions
from cytoray_serving.schema import ModelAnswered

_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
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
    """

    index: int
    uri: str
    name: str
    masks: str | None = None
    alone: bool = False


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
    error: ErrorBody | None = None
    again: bool = False


_ITEMS: TypeAdapter[list[Item]] = TypeAdapter(list[Item])


class JobFolder:
    """The files of one job."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def job(self) -> Job:
        """Return what is to be done."""
        return Job.model_validate_json((self.path / "job.json").read_bytes())

    def items(self) -> list[Item] | None:
        """Return the images; None until they are counted."""
        path = self.path / "items.json"
        return _ITEMS.validate_json(path.read_bytes()) if path.exists() else None

    def keep_items(self, items: list[Item]) -> None:
        """Write down the images, once for all drivers that may follow."""
        write_whole(self.path / "items.json", _ITEMS.dump_json(items))

    def state(self) -> JobStatus:
        """Return where the job stands."""
        status = JobStatus.model_validate_json((self.path / "state.json").read_bytes())
        if self.cancelled and not status.has_ended:
            asked = datetime.fromtimestamp((self.path / "cancelled").stat().st_mtime, UTC)
            return status.model_copy(update={"state": "cancelled", "ended": asked, "updated": asked})
        return status

    def keep_state(self, status: JobStatus) -> None:
        """Write down where the job stands."""
        write_whole(self.path / "state.json", status.model_dump_json())

    def records(self) -> list[Record]:
        """Return what is finished; a line that was being written when its process was killed is none."""
        path = self.path / "records.jsonl"
        if not path.exists():
            return []
        *lines, _ = path.read_bytes().split(b"\n")
        return [Record.model_validate_json(line) for line in lines]

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
        self._file = path.open("ab")
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

    def create(self, job: Job) -> JobStatus:
        """Keep a new job; it is there as a whole or not at all."""
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
        draft.path.mkdir(parents=True)
        write_whole(draft.path / "job.json", job.model_dump_json())
        draft.keep_state(status)
        draft.path.rename(self.folder / job.id)
        return status

    def find(self, job_id: str) -> JobFolder:
        """Return the folder of a job.

        Raises
        ------
        JobNotFoundError
            There is no such job.
        """
        folder = self.folder / job_id
        if not _ID.fullmatch(job_id) or not (folder / "job.json").is_file():
            raise JobNotFoundError(
                f"there is no job {job_id[:64]!r}", field="id", hint="GET /jobs and cytoray jobs list show all"
            )
        return JobFolder(folder)

    def folders(self) -> list[JobFolder]:
        """Return the folders of all jobs, in no order."""
        if not self.folder.is_dir():
            return []
        return [
            JobFolder(path) for path in self.folder.iterdir() if (path / "job.json").is_file() and path.name[0] != "."
        ]

    def states(self) -> list[JobStatus]:
        """Return where all jobs stand, the newest first; a damaged folder is passed over."""
        found = []
        for folder in self.folders():
            with contextlib.suppress(ValidationError, FileNotFoundError):
                found.append(folder.state())
        return sorted(found, key=lambda status: (status.created, status.id), reverse=True)


def new_id() -> str:
    """Return an unguessable name for a job, fit for addresses and folders."""
    return "job-" + secrets.token_hex(12)


def now() -> datetime:
    """Return the time, with its zone."""
    return datetime.now(UTC)
