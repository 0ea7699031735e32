"""Canaries and shadows: plain data, how the registry keeps it, and which version a request goes to."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, TypeVar

from pydantic import TypeAdapter

from cytoray_services.registry import CANDIDATE, CHAMPION, ModelRecord, Registry

STEPS = (0.05, 0.25, 1.0)
SHARE_MIRRORED = 0.1

_CANARY, _SHADOW, _MEASURED = "rollout.canary.", "rollout.shadow.", "rollout_measured."

CanaryState = Literal["running", "promoted", "withdrawn", "stopped"]
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Limits:
    """What a step must see, and how far a canary may be off before it is withdrawn.

    Attributes
    ----------
    seconds_per_step, least_requests
        A step lasts at least so long, and until the canary has answered so many requests in it.
    failures
        By how much its share of failed requests may exceed the other version's.
    slower, slowest
        How many times the other version's its median, and its 95 % quantile, of seconds per megapixel may be.
    drift
        Largest distance between the distributions of a number that describes the answers: the Kolmogorov-Smirnov
        statistic, 0 to 1.
    """

    seconds_per_step: float = 600.0
    least_requests: int = 500
    failures: float = 0.01
    slower: float = 1.25
    slowest: float = 1.5
    drift: float = 0.2


@dataclass(frozen=True)
class Canary:
    """A version that answers a growing share of the requests to an alias.

    Attributes
    ----------
    key
        What the registry calls this canary; sorts by time.
    alias, beside
        The alias, and the version that it has meanwhile.
    version
        The canary.
    steps, step
        Shares of the requests, and the index of the one that is in force.
    state
        ``promoted``: the alias has moved to it; ``withdrawn``: a limit was exceeded; ``stopped``: by somebody.
    began
        When the step began.
    started, who, reason
        When, by whom and why it was started.
    ended, why, by
        When, why and by whom it was ended; None and empty while it runs.
    measured
        What was seen in this step so far, by name; nothing is decided by it.
    """

    key: str
    model: str
    alias: str
    beside: str
    version: str
    steps: tuple[float, ...]
    limits: Limits
    who: str
    started: datetime
    began: datetime
    reason: str = ""
    step: int = 0
    state: CanaryState = "running"
    ended: datetime | None = None
    why: str = ""
    by: str = ""
    measured: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Shadow:
    """A version that is asked too, and whose answers nobody sees.

    Attributes
    ----------
    share
        Share of the requests to the alias that are mirrored to it.
    measured
        ``requests`` compared so far, and the mean of each number of :func:`cytoray_serving.answers.summary.compare`.

    The other attributes are those of :class:`Canary`.
    """

    key: str
    model: str
    alias: str
    version: str
    share: float
    who: str
    started: datetime
    reason: str = ""
    state: Literal["running", "stopped"] = "running"
    ended: datetime | None = None
    why: str = ""
    by: str = ""
    measured: dict[str, float] = field(default_factory=dict)


def share(canary: Canary) -> float:
    """Return the share of the requests that go to the canary now; 0 when it has ended."""
    return canary.steps[canary.step] if canary.state == "running" else 0.0


def chosen(canary: Canary, key: float) -> str:
    """Return the version that answers a request.

    Parameters
    ----------
    key
        0 ≤ `key` < 1, random for each request, or from a hash for each caller: who once has the canary keeps it as
        its share grows.
    """
    return canary.version if key < share(canary) else canary.beside


@dataclass(frozen=True)
class Routing:
    """Where the requests to a model go.

    Attributes
    ----------
    aliases
        Alias to version.
    digests
        Version to digest of its bundle, of all versions.
    canaries, shadows
        The running ones, by alias.
    past
        Those that have ended, oldest first.
    """

    name: str
    aliases: dict[str, str]
    digests: dict[str, str]
    canaries: dict[str, Canary]
    shadows: dict[str, Shadow]
    past: tuple[Canary | Shadow, ...] = ()

    def alias(self, wanted: str | None) -> str | None:
        """Return the alias that is meant; None, asked for none, where the model has neither champion nor candidate."""
        return wanted or next((alias for alias in (CHAMPION, CANDIDATE) if alias in self.aliases), None)

    def version(self, alias: str | None, key: float) -> str | None:
        """Return the version that answers a request to an alias, as :func:`chosen` does; None where there is none.

        Parameters
        ----------
        alias
            None for the champion, else the candidate, else the newest version.
        """
        meant = self.alias(alias)
        if meant is None:
            return max(self.digests, key=int, default=None)
        current, canary = self.aliases.get(meant), self.canaries.get(meant)
        # Somebody moved the alias meanwhile: he decides, and the canary is over.
        return current if canary is None or current != canary.beside else chosen(canary, key)

    def mirror(self, alias: str | None, key: float) -> str | None:
        """Return the version that shall answer a request too, without anybody seeing it; None for none.

        Parameters
        ----------
        key
            Another number than the one for :meth:`version`.
        """
        shadow = self.shadows.get(self.alias(alias) or "")
        if shadow is None or key >= shadow.share or self.aliases.get(shadow.alias) == shadow.version:
            return None
        return shadow.version


def read_routing(registry: Registry, name: str) -> Routing:
    """Ask the registry where the requests to a model go: one request to MLflow.

    Raises
    ------
    ModelNotFoundError, PlatformError
        See :meth:`Registry.record`.
    """
    return routing_of(registry.record(name))


def routing_of(record: ModelRecord) -> Routing:
    """Read the rollouts from the notes of a model."""
    canaries, shadows = _read(record.notes, _CANARY, _CANARIES), _read(record.notes, _SHADOW, _SHADOWS)
    everyone: list[Canary | Shadow] = [*canaries, *shadows]
    return Routing(
        record.name,
        record.aliases,
        record.digests,
        {one.alias: one for one in canaries if one.state == "running"},
        {one.alias: one for one in shadows if one.state == "running"},
        tuple(sorted((one for one in everyone if one.state != "running"), key=lambda one: one.started)),
    )


def canary_note(canary: Canary) -> dict[str, str]:
    """Return the note that records a canary, without what was measured."""
    return {f"{_CANARY}{canary.key}": _CANARIES.dump_json(canary, exclude={"measured"}).decode()}


def shadow_note(shadow: Shadow) -> dict[str, str]:
    """Return the note that records a shadow, without what was measured."""
    return {f"{_SHADOW}{shadow.key}": _SHADOWS.dump_json(shadow, exclude={"measured"}).decode()}


def measured_note(rollout: Canary | Shadow, measured: Mapping[str, float]) -> dict[str, str]:
    """Return the note of what was measured: one of its own, for it is written without asking who else writes."""
    return {f"{_MEASURED}{rollout.key}": _NUMBERS.dump_json(dict(measured)).decode()}


def new_key(now: datetime) -> str:
    """Return a key that sorts by time and that nobody else makes at the same moment."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}.{secrets.token_hex(2)}"


_CANARIES, _SHADOWS = TypeAdapter(Canary), TypeAdapter(Shadow)
_NUMBERS = TypeAdapter(dict[str, float])


def _read(notes: Mapping[str, str], prefix: str, adapter: TypeAdapter[Kind]) -> list[Kind]:
    """Return the records of one kind, oldest first, with what was measured."""
    found = []
    for key in sorted(key for key in notes if key.startswith(prefix)):
        record = _ANYTHING.validate_json(notes[key])
        measured = notes.get(f"{_MEASURED}{key.removeprefix(prefix)}", "{}")
        found.append(adapter.validate_python(record | {"measured": _NUMBERS.validate_json(measured)}))
    return found


_ANYTHING: TypeAdapter[dict[str, object]] = TypeAdapter(dict[str, object])
