"""The JSON that the jobs service speaks, beside :class:`~cytoray_services.jobs.job.Job` itself."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cytoray_services.jobs.job import Command, Job
from cytoray_services.tokens import Team


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class JobRequest(_Frozen):
    """A recipe, and what is done with it."""

    recipe: str = Field(min_length=1, description="The recipe, YAML.")
    overrides: list[str] = Field(default=[], alias="set", max_length=256, description="Fields: training.epochs=10.")
    command: Command = "train"
    team: Team | None = Field(default=None, description="For whom; that of the token by default.")


class JobList(_Frozen):
    """Jobs, the newest first."""

    jobs: list[Job]


class Checked(_Frozen):
    """A recipe that could be submitted."""

    name: str = Field(description="Of the model.")
    command: Command
    manifest: str = Field(description="What would be sent to the cluster, YAML.")


class Ready(_Frozen):
    """The cluster answers."""

    status: Literal["ready"] = "ready"
    place: str
