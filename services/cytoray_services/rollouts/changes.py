"""Starting, advancing and ending rollouts: each change is made while no other one can be made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import TypeVar

from cytoray_analysis.errors import ModelNotFoundError, RequestError
from cytoray_services.registry import CHAMPION, ModelRecord, Registry, whoami
from cytoray_services.registry.versions import check_reason
from cytoray_services.rollouts.rollout import (
    LARGEST_SHARE,
    STEPS,
    Kind,
    Limits,
    Rollout,
    Routing,
    State,
    new_key,
    rollout_note,
    routing_of,
)

Changed = TypeVar("Changed", bound=Rollout | None)


def start_rollout(
    registry: Registry,
    name: str,
    version: str,
    *,
    answers: bool = True,
    alias: str = CHAMPION,
    steps: Sequence[float] = STEPS,
    limits: Limits | None = None,
    reason: str = "",
) -> Rollout:
    """Send a share of the requests to an alias to another version from now on.

    Parameters
    ----------
    answers
        Whether callers get its answers, as those of a canary. Those of a shadow are compared and discarded.
    steps
        Shares, growing, above 0 and at most 1, of which a canary gets :data:`LARGEST_SHARE` at most: the other version
        keeps the rest until the end. After the last step the alias moves to the canary. A shadow has one share.
    limits
        When a canary is withdrawn.

    Raises
    ------
    ModelNotFoundError
        There is no such model or version, or it has no such alias.
    RequestError
        The alias has that version already, another rollout of this kind stands beside it, or `steps` are none.
    """
    (_check_steps if answers else _check_share)(steps)
    check_reason(reason)
    now = datetime.now(UTC)
    key = new_key(now)

    def start(routing: Routing) -> Rollout:
        current = _check_version(routing, version, alias)
        running = routing.rollout("canary" if answers else "shadow", alias)
        if running is not None:
            raise RequestError(
                f"{name}/{running.version} is a {running.kind} beside {name}@{alias} already; one at a time",
                field="alias",
                hint=f"wait for its end, or stop it: cytoray models {running.kind} {name} --stop",
            )
        return Rollout(
            key,
            name,
            alias,
            version,
            tuple(steps),
            whoami(),
            started=now,
            began=now,
            answers=answers,
            beside=current if answers else None,
            limits=limits or Limits(),
            reason=reason,
        )

    return _revise(registry, name, alias, start)


def stop_rollout(registry: Registry, kind: Kind, name: str, *, alias: str = CHAMPION, reason: str = "") -> Rollout:
    """End the canary or shadow beside an alias: the version of the alias alone gets requests again.

    Raises
    ------
    RequestError
        There is none.
    """
    check_reason(reason)

    def stop(routing: Routing) -> Rollout:
        running = routing.rollout(kind, alias)
        if running is None:
            raise RequestError(
                f"no {kind} stands beside {name}@{alias}", field="alias", hint=f"see: cytoray models show {name}"
            )
        return _ended(running, "stopped", reason)

    return _revise(registry, name, alias, stop)


def advance_canary(registry: Registry, canary: Rollout, now: datetime) -> Rollout | None:
    """Begin the next step of a canary; None where it was changed meanwhile, and nothing was done."""
    return _change(registry, canary, replace(canary, step=canary.step + 1, began=now))


def end_canary(registry: Registry, canary: Rollout, state: State, why: str) -> Rollout | None:
    """End a canary; None where it was changed meanwhile, and nothing was done."""
    return _change(registry, canary, _ended(canary, state, why))


def _change(registry: Registry, known: Rollout, wanted: Rollout) -> Rollout | None:
    def compare_and_set(routing: Routing) -> Rollout | None:
        current = routing.rollout(known.kind, known.alias)
        unchanged = current is not None and (current.key, current.step) == (known.key, known.step)
        return wanted if unchanged else None

    return _revise(registry, known.model, known.alias, compare_and_set)


def _revise(registry: Registry, name: str, alias: str, change: Callable[[Routing], Changed]) -> Changed:
    """Write the rollout that `change` returns, if any, while no other change of this alias can be made."""
    written: list[Changed] = []

    def revised(record: ModelRecord) -> dict[str, str]:
        written.append(change(routing_of(record)))
        return {} if written[-1] is None else rollout_note(written[-1])

    registry.revise(name, alias, revised)
    return written[-1]


def _ended(rollout: Rollout, state: State, why: str) -> Rollout:
    return replace(rollout, state=state, ended=datetime.now(UTC), why=why, by=whoami())


def _check_version(routing: Routing, version: str, alias: str) -> str:
    """Return the version that the alias has, which must be another one than `version`."""
    name = routing.name
    if version not in routing.digests:
        known = ", ".join(sorted(routing.digests, key=int, reverse=True))
        raise ModelNotFoundError(
            f"the model {name!r} has no version {version}; there are: {known or 'none'}",
            field="version",
            hint=f"see: cytoray models show {name}",
        )
    current = routing.aliases.get(alias)
    if current is None:
        raise ModelNotFoundError(
            f"the model {name!r} has no alias {alias!r} for another version to stand beside",
            field="alias",
            hint=f"give it one: cytoray models promote {name}/VERSION --alias {alias}",
        )
    if current == version:
        raise RequestError(
            f"{name}@{alias} has version {version} already",
            field="version",
            hint=f"choose another version; see: cytoray models show {name}",
        )
    return current


def _check_steps(steps: Sequence[float]) -> None:
    capped = [min(step, LARGEST_SHARE) for step in steps]
    if not steps or steps[0] <= 0 or steps[-1] > 1 or any(later <= earlier for earlier, later in pairwise(capped)):
        raise RequestError(
            f"expected growing shares of the requests above 0 and at most 1, of which {LARGEST_SHARE:g} is taken at "
            f"most, got {[*steps]}",
            field="steps",
            hint="such as --steps 5,25,90; the other version keeps 10 % until the end, to be compared with",
        )


def _check_share(steps: Sequence[float]) -> None:
    if len(steps) != 1 or not 0 < steps[0] <= 1:
        got = ", ".join(f"{step:g}" for step in steps)
        raise RequestError(f"expected a share above 0 and at most 1, got {got}", field="share", hint="such as 0.1")
