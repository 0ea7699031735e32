"""The description of a job, the same for every backend."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from cytoray_analysis.plural import counted
from cytoray_analysis.uris import without_secrets
from cytoray_services.jobs.scale import Scale

# Output of processes, which may contain an address with a password.
Shown = Annotated[str, AfterValidator(without_secrets)]
Command = Literal["train", "tune"]
Kind = Literal["train", "tune", "predict"]
State = Literal["queued", "running", "done", "failed", "cancelled"]


class Progress(BaseModel):
    """The progress of a job.

    Attributes
    ----------
    unit, done, total, failed
        Epochs or images; `total` is None until they are counted.
    score, score_name
        Score of the last validation of a training run.
    seconds_left
        Estimate from the time so far; None without an estimate.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    unit: Literal["epochs", "images"]
    done: int
    total: int | None = None
    failed: int = 0
    score: float | None = None
    score_name: str | None = None
    seconds_left: float | None = None

    def __str__(self) -> str:
        total = "?" if self.total is None else self.total
        epoch = f"epoch {self.done} of {total}"
        parts = [epoch if self.unit == "epochs" else f"{self.done} of {total} images done, {self.failed} failed"]
        if self.score is not None:
            parts.append(f"{self.score_name} {self.score:.3f}")
        if self.seconds_left:
            minutes, seconds = divmod(round(self.seconds_left), 60)
            parts.append(f"{minutes}:{seconds:02d} left")
        return ", ".join(parts)


class Job(BaseModel):
    """A job of any kind in any backend.

    Attributes
    ----------
    id
        ID for show, logs and stop.
    command, name
        The command, and the name of its model.
    state
        ``queued`` until its processes run; ``damaged`` if its record cannot be read.
    place
        The backend, in the form of ``--on``.
    owner, team
        Who submitted it.
    scale
        Resources that its recipe requests, which quotas count; None if the backend does not report them.
    workers
        Number of running workers; None if the backend does not report it.
    progress
        Progress of the job; None if unknown.
    reason, hint
        Why it is queued or has failed, in one sentence, and what to do.
    dashboard
        Address of Ray's dashboard; None if there is none.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")  # a service may send more fields than this release knows

    id: str
    command: Kind = "train"
    name: str
    state: State | Literal["damaged"]
    place: Shown
    owner: str = ""
    team: str | None = None
    scale: Scale | None = None
    workers: int | None = None
    progress: Progress | None = None
    reason: Shown | None = None
    hint: Shown | None = None
    dashboard: str | None = None
    created: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None
    seconds: float = Field(default=0.0, description="Seconds from its start until its end, or until now.")

    @property
    def has_ended(self) -> bool:
        """Whether the job has ended."""
        return self.state not in ("queued", "running")

    def lines(self) -> list[str]:
        """Return lines for people."""
        team = f", team {self.team}" if self.team else ""
        lines = [f"{self.id}  {self.state}  {self.command} {self.name}", f"  on {self.place}, by {self.owner}{team}"]
        if known := self.known_progress:
            lines.append(f"  {known}")
        lines += self.reasons()
        return lines + ([f"  {self.dashboard}"] if self.dashboard and not self.has_ended else [])

    @property
    def known_progress(self) -> str:
        """The progress, the number of workers and the time."""
        parts = [] if self.progress is None else [str(self.progress)]
        parts += [] if self.workers is None else [counted(self.workers, "worker")]
        return ", ".join(parts + ([f"{self.seconds:.1f} s"] if self.seconds else []))

    def reasons(self) -> list[str]:
        """Return why it is queued or has failed, and what to do."""
        lines = [f"  {self.state}: {self.reason}"] if self.reason else []
        return lines + ([f"   hint: {self.hint}"] if self.hint else [])
