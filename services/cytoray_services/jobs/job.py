"""What is said of a job, wherever it runs."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cytoray_services.jobs.scale import Scale

Command = Literal["train", "tune"]
State = Literal["queued", "running", "done", "failed", "cancelled"]


class Job(BaseModel):
    """A job as the cluster tells of it.

    Attributes
    ----------
    id
        What show, logs and stop are told.
    command, name
        What is done, and the name of the model that it is done for.
    state
        ``queued`` until its processes run.
    place
        Where, as ``--on`` has it.
    owner, team
        Who submitted it.
    scale
        What its recipe asks of the cluster, which quotas count; None where the place does not tell.
    workers
        That work now; None where the place does not tell.
    reason, hint
        Why it waits or has failed, in one sentence, and what to do.
    dashboard
        Address of Ray's dashboard; None where there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    command: Command = "train"
    name: str
    state: State
    place: str
    owner: str = ""
    team: str | None = None
    scale: Scale | None = None
    workers: int | None = None
    reason: str | None = None
    hint: str | None = None
    dashboard: str | None = None
    created: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None
    seconds: float = Field(default=0.0, description="From its start until it ended, or until now.")

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("done", "failed", "cancelled")
