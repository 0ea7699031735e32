"""Quotas of teams, counted over the jobs of the cluster, never over our own list."""

from __future__ import annotations

import math
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
    """Resources of jobs; memory and scratch in bytes."""

    jobs: int = 0
    gpus: int = 0
    cpus: int = 0
    memory: Decimal = Decimal(0)
    scratch: Decimal = Decimal(0)

    def __add__(self, other: Holding) -> Holding:
        return Holding(
            self.jobs + other.jobs,
            self.gpus + other.gpus,
            self.cpus + other.cpus,
            self.memory + other.memory,
            self.scratch + other.scratch,
        )


def asked(scale: Scale | None) -> Holding:
    """Return the resources of a job, as in its manifest: for all its nodes, even if it can continue with fewer.

    All nodes have the same size, so the last one counts fully; shared memory is memory of a node, scratch is its disk.
    """
    if scale is None:
        return Holding(jobs=1)
    per_node = min(scale.workers, scale.workers_per_node)
    nodes = math.ceil(scale.workers / per_node)
    return Holding(
        1,
        nodes * per_node * scale.gpus_per_worker,
        nodes * per_node * scale.cpus_per_worker,
        nodes * (per_node * quantity(scale.memory_per_worker) + quantity(scale.shared_memory)),
        nodes * quantity(scale.scratch),
    )


def held(jobs: Iterable[Job], team: str) -> Holding:
    """Return the resources of the queued and running jobs of a team."""
    return sum((asked(job.scale) for job in jobs if job.team == team and not job.has_ended), Holding())


def require_own_room(owner: str, most: int, jobs: Iterable[Job]) -> None:
    """Refuse a job above the limit of a caller.

    Raises
    ------
    OverloadedError
        The caller has too many queued and running jobs.
    """
    if sum(job.owner == owner and not job.has_ended for job in jobs) >= most:
        raise OverloadedError(
            f"expected at most {most} queued or running jobs of the caller {owner}, got one more",
            field="jobs",
            hint="wait until a job has ended, or stop one",
        )


def require_quota(team: str, quota: Quota, jobs: Iterable[Job], scale: Scale) -> None:
    """Refuse a job that would exceed the quota of its team.

    Raises
    ------
    ForbiddenError
        The job alone exceeds the quota.
    OverloadedError
        The job must wait for other jobs of the team.
    """
    more, now = asked(scale), held(jobs, team)
    limits: dict[str, tuple[int | Decimal | None, int | Decimal, int | Decimal]] = {
        "jobs": (quota.jobs, now.jobs, more.jobs),
        "GPUs": (quota.gpus, now.gpus, more.gpus),
        "CPUs": (quota.cpus, now.cpus, more.cpus),
        "of memory": (None if quota.memory is None else quantity(quota.memory), now.memory, more.memory),
        "of scratch": (None if quota.scratch is None else quantity(quota.scratch), now.scratch, more.scratch),
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
                f"the team {team} uses {_shown(what, taken)} of its {_shown(what, limit)} {what}, "
                f"and this job requests {_shown(what, wanted)}",
                field="scale",
                hint="wait until a job of the team has ended, or stop one",
            )


def _shown(what: str, amount: int | Decimal) -> str:
    return written(Decimal(amount)) if what.startswith("of ") else str(amount)
