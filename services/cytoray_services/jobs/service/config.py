"""The configuration of a jobs service."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from cytoray_analysis.errors import ForbiddenError
from cytoray_services.configuration import read_configuration
from cytoray_services.jobs.scale import Scale, Toleration
from cytoray_services.tokens.scopes import Team

_BYTES = r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$"  # a quantity of Kubernetes


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Quota(_Frozen):
    """Limits of the queued and running jobs of a team (null for no limit), and the data of the team.

    Attributes
    ----------
    jobs
        Maximum number of jobs.
    gpus, cpus
        Maximum for all their workers.
    memory
        Maximum for all their nodes, including shared memory, in the form of Kubernetes, such as ``256Gi``.
    scratch
        Maximum for the disks of their nodes, such as ``2Ti``.
    data
        Locations that training jobs of other teams may not name: ``s3://bucket/prefix``, ``pvc://claim/folder``, or a
        path.
    """

    jobs: int | None = Field(None, ge=0)
    gpus: int | None = Field(None, ge=0)
    cpus: int | None = Field(None, ge=0)
    memory: str | None = Field(None, pattern=_BYTES)
    scratch: str | None = Field(None, pattern=_BYTES)
    data: tuple[str, ...] = ()


class Choices(_Frozen):
    """What a recipe may choose in addition to the defaults of the platform: nothing by default.

    Attributes
    ----------
    priorities, queues
        Names of priority classes, and of Kueue's local queues.
    node_selector
        Allowed values by label of a node.
    tolerations
        Allowed tolerations, each as in a recipe.
    """

    priorities: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    node_selector: dict[str, tuple[str, ...]] = {}
    tolerations: tuple[Toleration, ...] = ()

    def require(self, scale: Scale) -> None:
        """Refuse a job with other choices.

        Raises
        ------
        ForbiddenError
            The recipe has a choice that is not allowed.
        """
        wanted: list[tuple[str, object, bool, Sequence[object]]] = [
            ("priority", scale.priority, scale.priority in (None, *self.priorities), self.priorities),
            ("queue", scale.queue, scale.queue in (None, *self.queues), self.queues),
        ]
        for label, value in scale.node_selector.items():
            values = self.node_selector.get(label, ())
            wanted.append((f"node_selector.{label}", value, value in values, values))
        for one in scale.tolerations:
            tolerated = [other.model_dump(exclude_none=True) for other in self.tolerations]
            wanted.append(("tolerations", one.model_dump(exclude_none=True), one in self.tolerations, tolerated))
        for field, got, fine, known in wanted:
            if not fine:
                named = ", ".join(map(str, known)) or "none"
                raise ForbiddenError(
                    f"expected an allowed value of scale.{field} ({named}), got {got!r}",
                    field=f"scale.{field}",
                    hint="remove it, or ask the operator of the jobs service",
                )


class JobsServiceConfig(_Frozen):
    """The configuration of a jobs service.

    Attributes
    ----------
    place
        The backend, in the form of ``--on``; ``kubernetes:/NAMESPACE`` is a namespace of the cluster of the service.
    audit
        The file of the audit trail.
    tokens
        The token file; null for the one in CYTORAY_HOME.
    teams
        Quotas. If there are any, only these teams submit jobs; otherwise there are no limits.
    choices
        What recipes may choose.
    look_seconds
        Interval of polling the jobs, for the metrics and for ``/health/ready``.
    recipe_megabytes
        Maximum size of a request.
    followers
        Maximum number of logs that are followed at a time.
    per_caller
        Maximum number of queued and running jobs of one caller (the name of a token); null for no limit. Tokens with
        the scope administer have no limit.
    acts_a_minute
        Maximum number of submissions and stops of one caller per minute; each adds two lines to the audit trail.
    """

    place: str
    audit: Path
    tokens: Path | None = None
    teams: dict[Team, Quota] = {}
    choices: Choices = Choices()
    look_seconds: float = Field(30.0, gt=0)
    recipe_megabytes: float = Field(1.0, gt=0)
    followers: int = Field(64, ge=1)
    per_caller: int | None = Field(100, ge=1)
    acts_a_minute: int = Field(60, ge=1)


def read_jobs_config(path: Path) -> JobsServiceConfig:
    """Read the configuration of a jobs service; see :func:`cytoray_services.configuration.read_configuration`."""
    return read_configuration(path, JobsServiceConfig, guide="docs/guides/jobs-service.md")
