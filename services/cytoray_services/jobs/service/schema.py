"""The JSON of the jobs service, in addition to :class:`~cytoray_services.jobs.job.Job`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cytoray_services.jobs.job import Command, Job, Shown
from cytoray_services.tokens.scopes import Team


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class JobRequest(_Frozen):
    """A recipe and its command."""

    recipe: str = Field(min_length=1, description="The recipe, YAML.")
    overrides: list[str] = Field(default=[], alias="set", max_length=256, description="Fields: training.epochs=10.")
    command: Command = "train"
    team: Team | None = Field(default=None, description="Team of the job; by default the team of the token.")


class JobList(_Frozen):
    """Jobs, newest first."""

    jobs: list[Job]


class Checked(_Frozen):
    """A valid recipe."""

    name: str = Field(description="Name of the model.")
    command: Command
    manifest: str = Field(description="The YAML that would be submitted, without values of environment variables.")


class Ready(_Frozen):
    """The cluster answers."""

    status: Literal["ready"] = "ready"
    place: Shown
