"""What the operator of a jobs service decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cytoray_analysis.errors import MissingFileError, RequestError
from cytoray_services.tokens import Team

_HINT = "docs/guides/jobs-service.md lists the fields"


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
    """Read the configuration of a jobs service.

    Raises
    ------
    MissingFileError
        There is no such file.
    RequestError
        It is no YAML, or a field is unknown or out of range.
    """
    import yaml

    if not path.is_file():
        raise MissingFileError(f"{path} does not exist", field="config", hint="check the path")
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} is no YAML: {error}", field="config", hint=_HINT) from error
    try:
        return JobsServiceConfig.model_validate({} if content is None else content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RequestError(
            f"{path}: {first['msg']}, got {str(first['input'])[:80]!r}", field=place or "config", hint=_HINT
        ) from error
