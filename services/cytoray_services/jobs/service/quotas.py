"""Quotas of teams, counted over what the cluster says of its jobs, never over a list of our own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from cytoray_analysis.errors import ForbiddenError, OverloadedError
from cytoray_services.jobs.job import Job
from cytoray_services.jobs.kubernetes.quantities import quantity, written
from cytoray_services.jobs.scale import Scale
from cytoray_services.jobs.service.config import Quota


@dataclass(frozen=True)
class Holding:
    """What jobs hold, or ask for; memory in bytes."""

    jobs: int = 0
    gpus: int = 0
    cpus: int = 0
    memory: Decimal = Decimal(0)

    def __add__(self, other: Holding) -> Holding:
        return Holding(
            self.jobs + other.jobs, self.gpus + other.gpus, self.cpus + other.cpus, self.memory + other.memory
        )


def asked(scale: Scale | None) -> Holding:
    """Return what a job asks for: all its workers, even where it would go on with fewer."""
    if scale is None:
        return Holding(jobs=1)
    return Holding(
        1,
        scale.workers * scale.gpus_per_worker,
        scale.workers * scale.cpus_per_worker,
        scale.workers * quantity(scale.memory_per_worker),
    )


def held(jobs: Iterable[Job], team: str) -> Holding:
    """Return what the jobs of a team hold that are queued or running."""
    return sum((asked(job.scale) for job in jobs if job.team == team and not job.has_ended), Holding())


def require_quota(team: str, quota: Quota, jobs: Iterable[Job], scale: Scale) -> None:
    """Refuse a job that would go beyond the quota of its team.

    Raises
    ------
    ForbiddenError
        It asks for more than the team may ever have.
    OverloadedError
        It has to wait for other jobs of the team.
    """
    more, now = asked(scale), held(jobs, team)
    limits: dict[str, tuple[int | Decimal | None, int | Decimal, int | Decimal]] = {
        "jobs": (quota.jobs, now.jobs, more.jobs),
        "GPUs": (quota.gpus, now.gpus, more.gpus),
        "CPUs": (quota.cpus, now.cpus, more.cpus),
        "of memory": (None if quota.memory is None else quantity(quota.memory), now.memory, more.memory),
    }
    limited = [(what, limit, taken, wanted) for what, (limit, taken, wanted) in limits.items() if limit is not None]
    for what, limit, _, wanted in limited:
        if wanted > limit:
            raise ForbiddenError(
                f"expected at most {_shown(what, limit)} {what}, the quota of the team {team}, "
                f"got {_shown(what, wanted)}",
                field="scale",
                hint="use fewer workers, or ask the operator for a larger quota",
            )
    for what, limit, taken, wanted in limited:
        if taken + wanted > limit:
            raise OverloadedError(
                f"the team {team} holds {_shown(what, taken)} of its {_shown(what, limit)} {what}, "
                f"and this job asks for {_shown(what, wanted)}",
                field="scale",
                hint="wait until a job of the team has ended, or stop one",
            )


def _shown(what: str, amount: int | Decimal) -> str:
    return written(Decimal(amount)) if what == "of memory" else str(amount)
