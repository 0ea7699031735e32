"""What the operator of a jobs service decides."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from cytoray_services.configuration import read_configuration
from cytoray_services.tokens import Team


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Quota(_Frozen):
    """What the jobs of a team may hold at a time, queued or running; null sets no limit.

    Attributes
    ----------
    jobs
        How many.
    gpus, cpus
        Of all their workers.
    memory
        Of all their workers, as Kubernetes writes it, such as ``256Gi``.
    """

    jobs: int | None = Field(None, ge=0)
    gpus: int | None = Field(None, ge=0)
    cpus: int | None = Field(None, ge=0)
    memory: str | None = Field(None, pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$")


class JobsServiceConfig(_Frozen):
    """A whole jobs service.

    Attributes
    ----------
    place
        Where its jobs run, as ``--on`` has it; ``kubernetes:/NAMESPACE`` is a namespace of the cluster it runs in.
    audit
        The file of the audit trail.
    tokens
        The file of the tokens; null for the one in CYTORAY_HOME.
    teams
        Quotas. Where there are any, only these teams submit jobs; where there are none, nobody has a limit.
    look_seconds
        Between two looks at the jobs, for the metrics and for ``/health/ready``.
    recipe_megabytes
        Of the largest request.
    followers
        Logs that are followed at a time.
    """

    place: str
    audit: Path
    tokens: Path | None = None
    teams: dict[Team, Quota] = {}
    look_seconds: float = Field(30.0, gt=0)
    recipe_megabytes: float = Field(1.0, gt=0)
    followers: int = Field(64, ge=1)


def read_jobs_config(path: Path) -> JobsServiceConfig:
    """Read the configuration of a jobs service; see :func:`cytoray_services.configuration.read_configuration`."""
    return read_configuration(path, JobsServiceConfig, guide="docs/guides/jobs-service.md")
