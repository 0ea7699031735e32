"""Starting, advancing and ending canaries and shadows: each change is made while nobody else can make another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

from cytoray_analysis.errors import ModelNotFoundError, RequestError
from cytoray_services.registry import CHAMPION, ModelRecord, Registry, whoami
from cytoray_services.registry.versions import check_reason
from cytoray_services.rollouts.rollout import (
    LARGEST_SHARE,
    SHARE_MIRRORED,
    STEPS,
    Canary,
    CanaryState,
    Limits,
    Routing,
    Shadow,
    canary_note,
    new_key,
    routing_of,
    shadow_note,
)


def start_canary(
    registry: Registry,
    name: str,
    version: str,
    *,
    alias: str = CHAMPION,
    steps: Sequence[float] = STEPS,
    limits: Limits | None = None,
    reason: str = "",
) -> Canary:
    """Send a share of the requests to an alias to another version from now on.

    Parameters
    ----------
    steps
        Shares, growing, above 0 and at most 1, of which :data:`LARGEST_SHARE` is taken at most: the other version
        keeps the rest until the end. After the last step the alias moves to the version.

    Raises
    ------
    ModelNotFoundError
        There is no such model or version, or it has no such alias.
    RequestError
        The alias has that version already, another canary stands beside it, or `steps` are none.
    """
    _check_steps(steps)
    check_reason(reason)
    now = datetime.now(UTC)
    made: list[Canary] = []

    def begin(record: ModelRecord) -> dict[str, str]:
        routing = routing_of(record)
        current = _check_version(routing, version, alias)
        running = routing.canaries.get(alias)
        if running is not None:
            raise _runs_already(f"{name}/{running.version} is a canary beside {name}@{alias}", name, "canary")
        canary = Canary(
            new_key(now), name, alias, current, version, tuple(steps), limits or Limits(), whoami(), now, now, reason
        )
        made.append(canary)
        return canary_note(canary)

    registry.revise(name, alias, begin)
    return made[0]


def start_shadow(
    registry: Registry,
    name: str,
    version: str,
    *,
    alias: str = CHAMPION,
    share: float = SHARE_MIRRORED,
    reason: str = "",
) -> Shadow:
    """Ask another version, too, for a share of the requests to an alias, and measure how its answers differ.

    Raises
    ------
    ModelNotFoundError
        There is no such model or version, or it has no such alias.
    RequestError
        The alias has that version already, another shadow stands beside it, or `share` is none.
    """
    if not 0 < share <= 1:
        raise RequestError(f"expected a share above 0 and at most 1, got {share:g}", field="share", hint="such as 0.1")
    check_reason(reason)
    now = datetime.now(UTC)
    shadow = Shadow(new_key(now), name, alias, version, share, whoami(), now, reason)

    def begin(record: ModelRecord) -> dict[str, str]:
        routing = routing_of(record)
        _check_version(routing, version, alias)
        running = routing.shadows.get(alias)
        if running is not None:
            raise _runs_already(f"{name}/{running.version} is a shadow of {name}@{alias}", name, "shadow")
        return shadow_note(shadow)

    registry.revise(name, alias, begin)
    return shadow


def stop_canary(registry: Registry, name: str, *, alias: str = CHAMPION, reason: str = "") -> Canary:
    """End the canary beside an alias: all requests go to the version of the alias again.

    Raises
    ------
    RequestError
        There is none.
    """
    check_reason(reason)
    ended: list[Canary] = []

    def stop(record: ModelRecord) -> dict[str, str]:
        running = routing_of(record).canaries.get(alias)
        if running is None:
            raise _none_runs(name, alias, "canary")
        ended.append(_ended(running, "stopped", reason))
        return canary_note(ended[0])

    registry.revise(name, alias, stop)
    return ended[0]


def stop_shadow(registry: Registry, name: str, *, alias: str = CHAMPION, reason: str = "") -> Shadow:
    """End the shadow of an alias.

    Raises
    ------
    RequestError
        There is none.
    """
    check_reason(reason)
    ended: list[Shadow] = []

    def stop(record: ModelRecord) -> dict[str, str]:
        running = routing_of(record).shadows.get(alias)
        if running is None:
            raise _none_runs(name, alias, "shadow")
        ended.append(replace(running, state="stopped", ended=datetime.now(UTC), why=reason, by=whoami()))
        return shadow_note(ended[0])

    registry.revise(name, alias, stop)
    return ended[0]


def advance_canary(registry: Registry, canary: Canary, now: datetime) -> Canary | None:
    """Begin the next step of a canary; None where somebody else changed it meanwhile, and nothing was done."""
    return _change(registry, canary, replace(canary, step=canary.step + 1, began=now))


def end_canary(registry: Registry, canary: Canary, state: CanaryState, why: str) -> Canary | None:
    """End a canary; None where somebody else changed it meanwhile, and nothing was done."""
    return _change(registry, canary, _ended(canary, state, why))


def _change(registry: Registry, known: Canary, wanted: Canary) -> Canary | None:
    written: list[Canary] = []

    def compare_and_set(record: ModelRecord) -> dict[str, str]:
        current = routing_of(record).canaries.get(known.alias)
        if current is None or (current.key, current.step) != (known.key, known.step):
            return {}
        written.append(wanted)
        return canary_note(wanted)

    registry.revise(known.model, known.alias, compare_and_set)
    return written[0] if written else None


def _ended(canary: Canary, state: CanaryState, why: str) -> Canary:
    return replace(canary, state=state, ended=datetime.now(UTC), why=why, by=whoami())


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


def _runs_already(what: str, name: str, kind: str) -> RequestError:
    return RequestError(
        f"{what} already; one at a time",
        field="alias",
        hint=f"wait for its end, or stop it: cytoray models {kind} {name} --stop",
    )


def _none_runs(name: str, alias: str, kind: str) -> RequestError:
    return RequestError(
        f"no {kind} stands beside {name}@{alias}", field="alias", hint=f"see: cytoray models show {name}"
    )
