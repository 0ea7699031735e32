"""Canaries and shadows: plain data, how the registry keeps it, and which version a request goes to."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, TypeVar

from pydantic import TypeAdapter

from cytoray_services.records import reading
from cytoray_services.registry import CANDIDATE, CHAMPION, ModelRecord, Registry

# The old version keeps a share until the end: there is always something of the same minutes to compare with.
LARGEST_SHARE = 0.9
MOST_LANES, LARGEST_LANES = 3, 0.15  # of the other version, and their share where there are several
STEPS = (0.05, 0.25, LARGEST_SHARE)
SHARE_MIRRORED = 0.1

_CANARY, _SHADOW, _MEASURED = "rollout.canary.", "rollout.shadow.", "rollout_measured."
_TRAFFIC = "rollout_traffic."

CanaryState = Literal["running", "promoted", "withdrawn", "stopped"]
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Limits:
    """What a step must see, and how far a canary may be off: it is withdrawn once it is surely off by more.

    Attributes
    ----------
    seconds_per_step, least_requests
        A step lasts at least so long, and until the canary has answered so many requests in it.
    failures
        By how much its share of failed requests may exceed the other version's.
    slower, slowest
        How many times the other version's its median, and its 95 % quantile, of seconds per megapixel may be; 1 or
        more.
    drift
        Largest distance between the distributions of a number that describes the answers: the Kolmogorov-Smirnov
        statistic, 0 to 1.
    """

    seconds_per_step: float = 600.0
    least_requests: int = 500
    failures: float = 0.005
    slower: float = 1.25
    slowest: float = 1.5
    drift: float = 0.1


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
        Shares of the requests, and the index of the one that is in force; see :func:`shares`.
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


def shares(canary: Canary) -> tuple[float, ...]:
    """Return the share of the requests of each step: of those that are asked for, at most :data:`LARGEST_SHARE`."""
    return tuple(min(step, LARGEST_SHARE) for step in canary.steps)


def share(canary: Canary) -> float:
    """Return the share of the requests that go to the canary now; 0 when it has ended."""
    return shares(canary)[canary.step] if canary.state == "running" else 0.0


def chosen(canary: Canary, key: float) -> str:
    """Return the version that answers a request.

    Parameters
    ----------
    key
        0 ≤ `key` < 1, random for each request, or from a hash for each caller: who once has the canary keeps it as
        its share grows.
    """
    return canary.version if key < share(canary) else canary.beside


def lane(canary: Canary, key: float) -> int:
    """Return the lane that a request is answered in: 0 with the rest of its version, else apart, its time compared.

    A lane has batches of its own. A version that answers more requests puts more of them into a batch, which takes less
    time for each; so what is compared are lanes of one size, as large as the smaller version's share: one of each
    version. Of a canary that has few requests the other version has up to three, so that chance plays a smaller part.

    Parameters
    ----------
    key
        As for :func:`chosen`.
    """
    size = min(share(canary), 1 - share(canary))
    if key < size:
        return 1
    lanes = max(1, min(MOST_LANES, int(LARGEST_LANES / size + 1e-9))) if size else 0
    return min(int((1 - key) / size) + 1, lanes) if key >= 1 - lanes * size else 0


@dataclass(frozen=True)
class Traffic:
    """Requests to an alias: the mean of the last day or so.

    Attributes
    ----------
    per_hour
        Requests an hour.
    hours
        Over how many hours they were counted, 24 at most.
    """

    per_hour: float
    hours: float


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
    traffic
        Requests to each alias, as far as a service has counted them.
    """

    name: str
    aliases: dict[str, str]
    digests: dict[str, str]
    canaries: dict[str, Canary]
    shadows: dict[str, Shadow]
    past: tuple[Canary | Shadow, ...] = ()
    traffic: dict[str, Traffic] = field(default_factory=dict)

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
        canary = self.canary(alias)
        return self.aliases.get(meant) if canary is None else chosen(canary, key)

    def canary(self, alias: str | None) -> Canary | None:
        """Return the canary beside an alias; None as well where the alias was moved meanwhile: the canary is over."""
        canary = self.canaries.get(self.alias(alias) or "")
        return None if canary is None or self.aliases.get(canary.alias) != canary.beside else canary

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
        {alias: traffic for alias in record.aliases if (traffic := _traffic(record.notes, alias)) is not None},
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


def traffic_note(alias: str, traffic: Traffic) -> dict[str, str]:
    """Return the note of the requests to an alias."""
    return {f"{_TRAFFIC}{alias}": _TRAFFICS.dump_json(traffic).decode()}


def _traffic(notes: Mapping[str, str], alias: str) -> Traffic | None:
    key = f"{_TRAFFIC}{alias}"
    if key not in notes:
        return None
    with reading(f"the tag {key} of the model", "requests of an alias", hint="delete that tag in MLflow"):
        return _TRAFFICS.validate_json(notes[key])


def new_key(now: datetime) -> str:
    """Return a key that sorts by time and that nobody else makes at the same moment."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}.{secrets.token_hex(2)}"


_CANARIES, _SHADOWS = TypeAdapter(Canary), TypeAdapter(Shadow)
_NUMBERS, _TRAFFICS = TypeAdapter(dict[str, float]), TypeAdapter(Traffic)


def _read(notes: Mapping[str, str], prefix: str, adapter: TypeAdapter[Kind]) -> list[Kind]:
    """Return the records of one kind, oldest first, with what was measured."""
    found = []
    for key in sorted(key for key in notes if key.startswith(prefix)):
        with reading(f"the tag {key} of the model", "a record of a rollout", hint="restore that tag in MLflow"):
            record = _ANYTHING.validate_json(notes[key])
            measured = notes.get(f"{_MEASURED}{key.removeprefix(prefix)}", "{}")
            found.append(adapter.validate_python(record | {"measured": _NUMBERS.validate_json(measured)}))
    return found


_ANYTHING: TypeAdapter[dict[str, object]] = TypeAdapter(dict[str, object])
