"""What the operator of a jobs service decides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from cytoray_analysis.errors import ForbiddenError
from cytoray_services.configuration import read_configuration
from cytoray_services.jobs.scale import Scale, Toleration
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


class Choices(_Frozen):
    """What of the cluster a recipe may choose, beside what the platform gives every job: by default nothing.

    Attributes
    ----------
    priorities, queues
        Names of priority classes, and of Kueue's local queues.
    node_selector
        By label of a node, the values that may be asked for.
    tolerations
        Taints that may be tolerated, each written as in a recipe.
    """

    priorities: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    node_selector: dict[str, tuple[str, ...]] = {}
    tolerations: tuple[Toleration, ...] = ()

    def require(self, scale: Scale) -> None:
        """Refuse a job that chooses anything else.

        Raises
        ------
        ForbiddenError
            It does.
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
                    f"expected scale.{field} to be what the operator allows ({named}), got {got!r}",
                    field=f"scale.{field}",
                    hint="leave it out, or ask the operator of the jobs service",
                )


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
    choices
        What recipes may choose of the cluster.
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
    choices: Choices = Choices()
    look_seconds: float = Field(30.0, gt=0)
    recipe_megabytes: float = Field(1.0, gt=0)
    followers: int = Field(64, ge=1)


def read_jobs_config(path: Path) -> JobsServiceConfig:
    """Read the configuration of a jobs service; see :func:`cytoray_services.configuration.read_configuration`."""
    return read_configuration(path, JobsServiceConfig, guide="docs/guides/jobs-service.md")
