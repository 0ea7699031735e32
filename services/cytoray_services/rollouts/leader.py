"""The one that leads all rollouts of a service: hears what became of requests, and changes the registry accordingly.

Knows nothing of Ray: one process of a service calls it, and whoever answers requests sends it what it saw, in batches.
What it has heard is in memory alone. Started again, a step begins to count anew; what was decided is in the registry.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cytoray_analysis.errors import CytorayError, InputError, PlatformError
from cytoray_services.registry import Registry
from cytoray_services.rollouts.changes import advance_canary, end_canary
from cytoray_services.rollouts.judge import Judge, Outcome, Verdict
from cytoray_services.rollouts.rollout import (
    Canary,
    Routing,
    Shadow,
    Traffic,
    measured_note,
    read_routing,
    shares,
    traffic_note,
)

log = logging.getLogger(__name__)

BETWEEN_NOTES = timedelta(seconds=10)
BETWEEN_COUNTS = timedelta(minutes=10)
DAY = 24.0  # hours


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


@dataclass(frozen=True)
class Counted:
    """How many requests came to an alias of a model, since the last report."""

    model: str
    alias: str
    requests: int


Report = Observed | Compared | Counted


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
        self._requests: Counter[tuple[str, str]] = Counter()
        self._counted: dict[str, datetime] = {}
        self._lock = threading.Lock()

    def observe_many(self, reports: Iterable[Report]) -> None:
        """Take note of many requests at once."""
        for one in reports:
            match one:
                case Observed(model, version, outcome):
                    self.observe(model, version, outcome)
                case Compared(model, version, agreement):
                    self.observe_shadow(model, version, agreement)
                case Counted(model, alias, requests):
                    self.count(model, alias, requests)

    def count(self, model: str, alias: str, requests: int) -> None:
        """Take note of how many requests came to an alias."""
        with self._lock:
            self._models.add(model)
            self._requests[model, alias] += requests

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
                self._write_traffic(routing, now)
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
        reason = f"canary at {', '.join(f'{share:.0%}' for share in shares(canary))} of the requests"
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
                measured = self._judges[canary.key].measured(now)
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

    def _write_traffic(self, routing: Routing, now: datetime) -> None:
        """Write how many requests came to each alias, now and then: the start of a canary prints how long it takes."""
        since = self._counted.setdefault(routing.name, now)
        if now - since < BETWEEN_COUNTS:
            return
        self._counted[routing.name] = now  # where the registry does not take it, these minutes are missing, no more
        hours = (now - since).total_seconds() / 3600
        notes: dict[str, str] = {}
        for alias in routing.aliases:
            with self._lock:
                requests = self._requests.pop((routing.name, alias), 0)
            known = routing.traffic.get(alias)
            if requests or known is not None:
                notes |= traffic_note(alias, _mean(known or Traffic(0.0, 0.0), requests, hours))
        if notes:
            self._registry.note(routing.name, notes)

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


def _mean(known: Traffic, requests: int, hours: float) -> Traffic:
    """Return the mean of what was known and what came in these hours."""
    before = max(min(known.hours, DAY - hours), 0.0)
    return Traffic((known.per_hour * before + requests) / (before + hours), before + hours)


def _said(canary: Canary) -> str:
    what = f"canary {canary.model}/{canary.version} beside @{canary.alias}"
    if canary.state == "running":
        return f"{what}: now {shares(canary)[canary.step]:.0%} of the requests"
    return f"{what}: {canary.state}, {canary.why}"
