"""Leads all rollouts of a service: it gets reports of requests, and changes the registry accordingly.

It does not depend on Ray: one process of a service calls it, and gateways send it their reports in batches. Reports
are in memory alone: after a restart a step counts from the beginning; what was decided is in the registry.
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
from cytoray_services.rollouts.canary_analysis import CanaryAnalysis, Outcome, Verdict
from cytoray_services.rollouts.changes import advance_canary, end_canary
from cytoray_services.rollouts.rollout import (
    Rollout,
    Routing,
    Traffic,
    measured_note,
    read_routing,
    share,
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
    """The agreement of a shadow with what was sent, since it was last written down."""

    requests: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, other: _Sums) -> None:
        self.requests += other.requests
        for name, value in other.sums.items():
            self.counts[name] = self.counts.get(name, 0) + other.counts[name]
            self.sums[name] = self.sums.get(name, 0.0) + value


class RolloutController:
    """Leads the rollouts of some models.

    May be called from several threads.

    Parameters
    ----------
    registry
        Where rollouts are kept.
    models
        Names of the models; those that reports are about are added.
    """

    def __init__(self, registry: Registry, models: Iterable[str] = ()) -> None:
        self._registry = registry
        self._models = set(models)
        self._analyses: dict[str, dict[str, CanaryAnalysis]] = {}  # of the running canaries, by model and key
        self._shadows: dict[tuple[str, str], _Sums] = {}
        self._noted: dict[str, datetime] = {}
        self._requests: Counter[tuple[str, str]] = Counter()
        self._counted: dict[str, datetime] = {}
        self._lock = threading.Lock()

    def observe(self, reports: Iterable[Report]) -> None:
        """Take note of what happened to requests."""
        with self._lock:
            for one in reports:
                self._models.add(one.model)
                match one:
                    case Observed(model, version, outcome):
                        for analysis in self._analyses.get(model, {}).values():
                            analysis.observe(version, outcome)
                    case Compared(model, version, agreement):
                        self._add(model, version, _Sums(1, dict.fromkeys(agreement, 1), dict(agreement)))
                    case Counted(model, alias, requests):
                        self._requests[model, alias] += requests

    def _add(self, model: str, version: str, agreement: _Sums) -> None:
        self._shadows.setdefault((model, version), _Sums()).add(agreement)

    def step(self, now: datetime) -> tuple[Rollout, ...]:
        """Look after every model once: a second or two apart is a good rhythm.

        What the registry does not take is tried again in the next step.

        Returns
        -------
        tuple
            The canaries that were changed, as they are now.
        """
        changed: list[Rollout] = []
        for model in sorted(self._models):
            try:
                routing = read_routing(self._registry, model)
                canaries = [one for one in routing.running if one.answers]
                self._follow(model, canaries)
                for canary in canaries:
                    after = self._lead(canary, routing, now)
                    if after is not None:
                        log.warning("%s", _said(after))
                        changed.append(after)
                for rollout in routing.running:
                    self._write_down(model, rollout, now)
                self._write_traffic(routing, now)
            except PlatformError as error:
                log.warning("the rollouts of %s wait: %s", model, error.message)
            except CytorayError as error:
                log.warning("the rollouts of %s cannot be led: %s", model, error.message)
        return tuple(changed)

    def _follow(self, model: str, canaries: Iterable[Rollout]) -> None:
        with self._lock:
            known = self._analyses.get(model, {})
            self._analyses[model] = {one.key: known.get(one.key) or CanaryAnalysis(one) for one in canaries}

    def _lead(self, canary: Rollout, routing: Routing, now: datetime) -> Rollout | None:
        """Do what the analysis says; None where everything stays."""
        current = routing.aliases.get(canary.alias)
        if current == canary.version:
            return end_canary(self._registry, canary, "promoted", "the alias has moved to it")
        if current != canary.beside:
            why = f"{canary.model}@{canary.alias} was moved to {current or 'nothing'} meanwhile"
            return end_canary(self._registry, canary, "stopped", why)
        with self._lock:
            verdict = self._analyses[routing.name][canary.key].verdict(canary, now)
        match verdict:
            case Verdict("withdraw", reason):
                return end_canary(self._registry, canary, "withdrawn", reason)
            case Verdict("advance"):
                return advance_canary(self._registry, canary, now)
            case Verdict("finish"):
                return self._promote(canary)
            case _:
                return None

    def _promote(self, canary: Rollout) -> Rollout | None:
        reason = f"canary at {', '.join(f'{step:.0%}' for step in shares(canary))} of the requests"
        try:
            self._registry.promote(canary.model, canary.version, canary.alias, expected=canary.beside, reason=reason)
        except InputError as error:  # the alias was moved, or the version deleted, after it was read
            return end_canary(self._registry, canary, "stopped", error.message)
        return end_canary(self._registry, canary, "promoted", "nothing spoke against it")

    def _write_down(self, model: str, rollout: Rollout, now: datetime) -> None:
        """Write what was measured, now and then, for people to look at."""
        last = self._noted.get(rollout.key)
        if last is not None and now - last < BETWEEN_NOTES:
            return
        self._noted[rollout.key] = now
        if not rollout.answers:
            self._write_agreement(rollout)
            return
        with self._lock:
            measured = self._analyses[model][rollout.key].measured(now)
        if measured != rollout.measured:
            self._registry.note(rollout.model, measured_note(rollout, measured))

    def _write_agreement(self, shadow: Rollout) -> None:
        with self._lock:
            heard = self._shadows.pop((shadow.model, shadow.version), None)
        if heard is None:
            return
        try:
            self._registry.note(shadow.model, measured_note(shadow, _merged(shadow.measured, heard)))
        except PlatformError:
            with self._lock:
                self._add(shadow.model, shadow.version, heard)
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


def _said(canary: Rollout) -> str:
    what = f"canary {canary.model}/{canary.version} beside @{canary.alias}"
    if canary.state == "running":
        return f"{what}: now {share(canary):.0%} of the requests"
    return f"{what}: {canary.state}, {canary.why}"
