"""The one that leads all rollouts of a service: hears what became of requests, and changes the registry accordingly.

Knows nothing of Ray: one process of a service calls it, and whoever answers requests sends it what it saw, in batches.
What it has heard is in memory alone. Started again, a step begins to count anew; what was decided is in the registry.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cytoray_analysis.errors import CytorayError, InputError, PlatformError
from cytoray_services.registry import Registry
from cytoray_services.rollouts.changes import advance_canary, end_canary
from cytoray_services.rollouts.judge import Judge, Outcome, Verdict
from cytoray_services.rollouts.rollout import Canary, Routing, Shadow, measured_note, read_routing

log = logging.getLogger(__name__)

BETWEEN_NOTES = timedelta(seconds=10)


@dataclass(frozen=True)
class Observed:
    """A request that a version of a model answered."""

    model: str
    version: str
    outcome: Outcome


@dataclass(frozen=True)
class Compared:
    """How far the answer of a shadow agrees with the one that was sent: a few numbers by name."""

    model: str
    version: str
    agreement: Mapping[str, float]


@dataclass
class _Sums:
    """What was heard of a shadow since it was last written down."""

    requests: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)


class RolloutKeeper:
    """Leads the canaries and shadows of some models.

    May be called from several threads.

    Parameters
    ----------
    registry
        Where rollouts are kept.
    models
        Names of the models; those that something is observed of are added.
    """

    def __init__(self, registry: Registry, models: Iterable[str] = ()) -> None:
        self._registry = registry
        self._models = set(models)
        self._judges: dict[str, Judge] = {}
        self._shadows: dict[tuple[str, str], _Sums] = {}
        self._canaries: dict[str, tuple[Canary, ...]] = {}
        self._noted: dict[str, datetime] = {}
        self._lock = threading.Lock()

    def observe_many(self, observations: Iterable[Observed | Compared]) -> None:
        """Take note of many requests at once."""
        for one in observations:
            if isinstance(one, Observed):
                self.observe(one.model, one.version, one.outcome)
            else:
                self.observe_shadow(one.model, one.version, one.agreement)

    def observe(self, model: str, version: str, outcome: Outcome) -> None:
        """Take note of a request that a version answered."""
        with self._lock:
            self._models.add(model)
            for canary in self._canaries.get(model, ()):
                self._judges[canary.key].observe(version, outcome)

    def observe_shadow(self, model: str, version: str, agreement: Mapping[str, float]) -> None:
        """Take note of how far the answer of a shadow agrees with the one that was sent."""
        with self._lock:
            self._models.add(model)
            heard = self._shadows.setdefault((model, version), _Sums())
            heard.requests += 1
            for name, value in agreement.items():
                heard.counts[name] = heard.counts.get(name, 0) + 1
                heard.sums[name] = heard.sums.get(name, 0.0) + value

    def step(self, now: datetime) -> tuple[Canary, ...]:
        """Look after every model once: a second or two apart is a good rhythm.

        What the registry does not take is tried again in the next step.

        Returns
        -------
        tuple
            The canaries that were changed, as they are now.
        """
        changed: list[Canary] = []
        for model in sorted(self._models):
            try:
                routing = read_routing(self._registry, model)
                self._follow(model, routing)
                for canary in routing.canaries.values():
                    after = self._lead(canary, routing, now)
                    if after is not None:
                        log.warning("%s", _said(after))
                        changed.append(after)
                self._write_down(routing, now)
            except PlatformError as error:
                log.warning("the rollouts of %s wait: %s", model, error.message)
            except CytorayError as error:
                log.warning("the rollouts of %s cannot be led: %s", model, error.message)
        return tuple(changed)

    def _follow(self, model: str, routing: Routing) -> None:
        running = tuple(routing.canaries.values())
        with self._lock:
            ended = {canary.key for canary in self._canaries.get(model, ())} - {canary.key for canary in running}
            for key in ended:
                del self._judges[key]
            for canary in running:
                self._judges.setdefault(canary.key, Judge(canary))
            self._canaries[model] = running

    def _lead(self, canary: Canary, routing: Routing, now: datetime) -> Canary | None:
        """Do what the judge says; None where everything stays."""
        current = routing.aliases.get(canary.alias)
        if current == canary.version:
            return end_canary(self._registry, canary, "promoted", "the alias has moved to it")
        if current != canary.beside:
            why = f"{canary.model}@{canary.alias} was moved to {current or 'nothing'} meanwhile"
            return end_canary(self._registry, canary, "stopped", why)
        with self._lock:
            verdict = self._judges[canary.key].verdict(canary, now)
        match verdict:
            case Verdict("withdraw", reason):
                return end_canary(self._registry, canary, "withdrawn", reason)
            case Verdict("advance"):
                return advance_canary(self._registry, canary, now)
            case Verdict("finish"):
                return self._promote(canary)
            case _:
                return None

    def _promote(self, canary: Canary) -> Canary | None:
        shares = ", ".join(f"{share:.0%}" for share in canary.steps)
        reason = f"canary at {shares} of the requests"
        try:
            self._registry.promote(canary.model, canary.version, canary.alias, expected=canary.beside, reason=reason)
        except InputError as error:  # somebody moved the alias, or deleted the version, between reading and now
            return end_canary(self._registry, canary, "stopped", error.message)
        return end_canary(self._registry, canary, "promoted", "nothing spoke against it")

    def _write_down(self, routing: Routing, now: datetime) -> None:
        """Write what was measured, now and then, for people to look at."""
        for canary in routing.canaries.values():
            if not self._is_due(canary, now):
                continue
            with self._lock:
                measured = self._judges[canary.key].measured()
            if measured != canary.measured:
                self._registry.note(canary.model, measured_note(canary, measured))
        for shadow in routing.shadows.values():
            heard = self._shadows.get((shadow.model, shadow.version))
            if heard is None or not heard.requests or not self._is_due(shadow, now):
                continue
            with self._lock:
                heard = self._shadows.pop((shadow.model, shadow.version))
            try:
                self._registry.note(shadow.model, measured_note(shadow, _merged(shadow.measured, heard)))
            except PlatformError:
                self._put_back(shadow, heard)
                raise

    def _put_back(self, shadow: Shadow, heard: _Sums) -> None:
        with self._lock:
            newer = self._shadows.setdefault((shadow.model, shadow.version), _Sums())
            newer.requests += heard.requests
            for name, value in heard.sums.items():
                newer.counts[name] = newer.counts.get(name, 0) + heard.counts[name]
                newer.sums[name] = newer.sums.get(name, 0.0) + value

    def _is_due(self, rollout: Canary | Shadow, now: datetime) -> bool:
        last = self._noted.get(rollout.key)
        if last is not None and now - last < BETWEEN_NOTES:
            return False
        self._noted[rollout.key] = now
        return True


def _merged(known: Mapping[str, float], heard: _Sums) -> dict[str, float]:
    """Add what was heard to the means that are written down."""
    requests = known.get("requests", 0)
    merged = {**known, "requests": requests + heard.requests}
    for name, count in heard.counts.items():
        weight = requests if name in known else 0
        merged[name] = (known.get(name, 0.0) * weight + heard.sums[name]) / (weight + count)
    return merged


def _said(canary: Canary) -> str:
    what = f"canary {canary.model}/{canary.version} beside @{canary.alias}"
    if canary.state == "running":
        return f"{what}: now {canary.steps[canary.step]:.0%} of the requests"
    return f"{what}: {canary.state}, {canary.why}"
