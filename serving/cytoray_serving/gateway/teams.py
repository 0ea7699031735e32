"""Settings of a team: its own folders and buckets, and its limits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from cytoray_services.storage.allowed import Allowed
from cytoray_services.tokens.access import Caller


class TeamConfig(BaseModel):
    """One team.

    Attributes
    ----------
    roots, buckets
        See :class:`~cytoray_services.storage.allowed.Allowed`; in addition to the locations for all. No other team may
        use them, even inside folders and buckets for all.
    jobs
        Maximum number of unfinished jobs of the team; null for no limit.
    waiting
        Maximum number of running and queued requests of the team at one gateway; null for no limit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    roots: tuple[Path, ...] = ()
    buckets: tuple[str, ...] = ()
    jobs: int | None = Field(default=None, ge=0)
    waiting: int | None = Field(default=None, ge=0)


def allowed_for(caller: Caller, everybody: Allowed, teams: Mapping[str, TeamConfig]) -> Allowed:
    """Return the locations that a caller may name: the ones for all, and those of the caller's teams.

    With the scope administer, the locations of every team.
    """
    own = [team for name, team in teams.items() if caller.administers or name in caller.teams]
    others = [team for name, team in teams.items() if not caller.administers and name not in caller.teams]
    return everybody.model_copy(
        update={
            "roots": (*everybody.roots, *(root for team in own for root in team.roots)),
            "buckets": (*everybody.buckets, *(bucket for team in own for bucket in team.buckets)),
            "refused_roots": (*everybody.refused_roots, *(root for team in others for root in team.roots)),
            "refused_buckets": (*everybody.refused_buckets, *(bucket for team in others for bucket in team.buckets)),
        }
    )
