"""A rollout of a version: plain data, how the registry keeps it, and which version a request goes to."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import TypeAdapter

from cytoray_services.records import reading
from cytoray_services.registry import CANDIDATE, CHAMPION, ModelRecord, Registry

# The old version keeps a share until the end: there is always something of the same minutes to compare with.
LARGEST_SHARE = 0.9
MOST_LANES, LARGEST_LANES = 3, 0.15  # of the other version, and their share where there are several
STEPS = (0.05, 0.25, LARGEST_SHARE)

Kind = Literal["canary", "shadow"]
State = Literal["running", "promoted", "withdrawn", "stopped"]

_NOTES: dict[Kind, str] = {"canary": "rollout.canary.", "shadow": "rollout.shadow."}
_MEASURED, _TRAFFIC = "rollout_measured.", "rollout_traffic."


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
class Rollout:
    """A version that gets a share of the requests to an alias: a canary answers them, a shadow does not.

    Attributes
    ----------
    key
        What the registry calls this rollout; sorts by time.
    answers
        Whether callers get its answers. The answers of a shadow are compared with those that callers get, and
        discarded.
    alias, beside
        The alias, and the version that it has meanwhile; None for a shadow, which stands beside whichever it has.
    version
        The version that is rolled out.
    steps, step
        Shares of the requests, and the index of the one that is in force; see :func:`shares`. A shadow has one.
    limits
        When it is withdrawn; a shadow is held to none, for it decides nothing.
    state
        ``promoted``: the alias has moved to it; ``withdrawn``: a limit was exceeded; ``stopped``: by a person.
    began
        When the step began.
    started, who, reason
        When, by whom and why it was started.
    ended, why, by
        When, why and by whom it was ended; None and empty while it runs.
    measured
        What was measured so far, by name; nothing is decided by it. Of a canary: in this step. Of a shadow:
        ``requests`` compared, and the mean of each number of :func:`cytoray_serving.answers.summary.compare`.
    """

    key: str
    model: str
    alias: str
    version: str
    steps: tuple[float, ...]
    who: str
    started: datetime
    began: datetime
    answers: bool = True
    beside: str | None = None
    limits: Limits = field(default_factory=Limits)
    reason: str = ""
    step: int = 0
    state: State = "running"
    ended: datetime | None = None
    why: str = ""
    by: str = ""
    measured: dict[str, float] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """The word for it in commands and in the registry."""
        return "canary" if self.answers else "shadow"


def shares(rollout: Rollout) -> tuple[float, ...]:
    """Return the share of the requests of each step; of a canary at most :data:`LARGEST_SHARE`."""
    return tuple(min(step, LARGEST_SHARE) for step in rollout.steps) if rollout.answers else rollout.steps


def share(rollout: Rollout) -> float:
    """Return the share of the requests that the version gets in the present step, or got in the last one."""
    return shares(rollout)[rollout.step]


def takes(rollout: Rollout, key: float) -> bool:
    """Return whether the version gets a request.

    Parameters
    ----------
    key
        0 ≤ `key` < 1, random for each request, or from a hash for each caller: who once has the version keeps it as
        its share grows.
    """
    return rollout.state == "running" and key < share(rollout)


def lane(canary: Rollout, key: float) -> int:
    """Return the lane that a request is answered in: 0 with the rest of its version, else apart, its time compared.

    A lane has batches of its own. A version that answers more requests puts more of them into a batch, which takes less
    time for each; so what is compared are lanes of one size, as large as the smaller version's share: one of each
    version. Of a canary that has few requests the other version has up to three, so that chance plays a smaller part.

    Parameters
    ----------
    key
        As for :func:`takes`.
    """
    size = min(share(canary), 1 - share(canary))
    if key < size:
        return 1
    lanes = max(1, min(MOST_LANES, int(LARGEST_LANES / size + 1e-9)))
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
    running, past
        Rollouts, oldest first; of an alias at most one canary and one shadow run at a time.
    traffic
        Requests to each alias, as far as a service has counted them.
    """

    name: str
    aliases: dict[str, str]
    digests: dict[str, str]
    running: tuple[Rollout, ...] = ()
    past: tuple[Rollout, ...] = ()
    traffic: dict[str, Traffic] = field(default_factory=dict)

    def alias(self, wanted: str | None) -> str | None:
        """Return the alias that is meant; None, asked for none, where the model has neither champion nor candidate."""
        return wanted or next((alias for alias in (CHAMPION, CANDIDATE) if alias in self.aliases), None)

    def rollout(self, kind: Kind, alias: str | None) -> Rollout | None:
        """Return the running rollout of a kind beside an alias; None for none."""
        meant = self.alias(alias)
        return next((one for one in self.running if one.kind == kind and one.alias == meant), None)

    def in_force(self, kind: Kind, alias: str | None) -> Rollout | None:
        """Return the rollout that counts for requests to an alias; None for none.

        None as well where the alias was moved meanwhile: to another version, which ends a canary, or to the version
        that is rolled out.
        """
        rollout, current = self.rollout(kind, alias), self.aliases.get(self.alias(alias) or "")
        if rollout is None or rollout.version == current or rollout.beside not in (None, current):
            return None
        return rollout

    def version(self, alias: str | None, key: float) -> str | None:
        """Return the version that answers a request to an alias; None where there is none.

        Parameters
        ----------
        alias
            None for the champion, else the candidate, else the newest version.
        key
            As for :func:`takes`.
        """
        meant = self.alias(alias)
        if meant is None:
            return max(self.digests, key=int, default=None)
        return self._taking("canary", alias, key) or self.aliases.get(meant)

    def mirror(self, alias: str | None, key: float) -> str | None:
        """Return the version whose answer to a request is compared and discarded; None for none.

        Parameters
        ----------
        key
            Another number than the one for :meth:`version`.
        """
        return self._taking("shadow", alias, key)

    def _taking(self, kind: Kind, alias: str | None, key: float) -> str | None:
        rollout = self.in_force(kind, alias)
        return rollout.version if rollout is not None and takes(rollout, key) else None


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
    notes = record.notes
    found = [_read(notes, kind, tag) for kind, prefix in _NOTES.items() for tag in notes if tag.startswith(prefix)]
    found.sort(key=lambda one: one.started)
    return Routing(
        record.name,
        record.aliases,
        record.digests,
        tuple(one for one in found if one.state == "running"),
        tuple(one for one in found if one.state != "running"),
        {alias: traffic for alias in record.aliases if (traffic := _traffic(notes, alias)) is not None},
    )


def facts_of(rollout: Rollout) -> dict[str, Any]:
    """Return what is recorded of a rollout, with the share that it has."""
    return asdict(rollout) | {"share": share(rollout)}


def rollout_note(rollout: Rollout) -> dict[str, str]:
    """Return the note that records a rollout, without what was measured."""
    facts = {name: fact for name, fact in facts_of(rollout).items() if name != "measured"}
    return {f"{_NOTES[rollout.kind]}{rollout.key}": _ANYTHING.dump_json(facts).decode()}


def measured_note(rollout: Rollout, measured: Mapping[str, float]) -> dict[str, str]:
    """Return the note of what was measured: one of its own, for it is written without asking who else writes."""
    return {f"{_MEASURED}{rollout.key}": _NUMBERS.dump_json(dict(measured)).decode()}


def traffic_note(alias: str, traffic: Traffic) -> dict[str, str]:
    """Return the note of the requests to an alias."""
    return {f"{_TRAFFIC}{alias}": _TRAFFICS.dump_json(traffic).decode()}


def new_key(now: datetime) -> str:
    """Return a unique key that sorts by time."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}.{secrets.token_hex(2)}"


def _traffic(notes: Mapping[str, str], alias: str) -> Traffic | None:
    key = f"{_TRAFFIC}{alias}"
    if key not in notes:
        return None
    with reading(f"the tag {key} of the model", "requests of an alias", hint="delete that tag in MLflow"):
        return _TRAFFICS.validate_json(notes[key])


def _read(notes: Mapping[str, str], kind: Kind, tag: str) -> Rollout:
    """Read a rollout with what was measured."""
    with reading(f"the tag {tag} of the model", "a record of a rollout", hint="restore that tag in MLflow"):
        record = _ANYTHING.validate_json(notes[tag])
        if kind == "shadow" and "steps" not in record:  # written before shadows had the form of canaries
            record |= {"answers": False, "steps": [record["share"]], "began": record["started"]}
        measured = notes.get(f"{_MEASURED}{tag.removeprefix(_NOTES[kind])}", "{}")
        return _ROLLOUTS.validate_python(record | {"measured": _NUMBERS.validate_json(measured)})


_ROLLOUTS, _ANYTHING = TypeAdapter(Rollout), TypeAdapter(dict[str, Any])
_NUMBERS, _TRAFFICS = TypeAdapter(dict[str, float]), TypeAdapter(Traffic)
