"""What the registry knows about a model, and how people refer to it; plain data, no MLflow.

A reference is ``name``, ``name@alias`` or ``name/version``. Two aliases have a meaning: ``candidate`` is the
newest trained version, ``champion`` the one that is served.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from cytoray_analysis.errors import RequestError
from cytoray_services.records import reading

log = logging.getLogger(__name__)

CANDIDATE = "candidate"
CHAMPION = "champion"

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
DIGEST = re.compile(r"[0-9a-f]{64}")
_REFERENCE = re.compile(rf"(?P<name>{NAME.pattern})(?:@(?P<alias>[A-Za-z][\w-]*)|/(?P<version>[0-9]{{1,9}}))?")

_METRIC_TAG = "metric."
_MOVE_TAG = "alias_history."

LONGEST_REASON = 2000  # characters; MLflow keeps up to 5000 of a whole record


@dataclass(frozen=True)
class ModelVersion:
    """One version of a registered model.

    Attributes
    ----------
    name, version
        What it is called: ``name/version``.
    aliases
        The aliases that point to it, sorted.
    run_id
        The MLflow run that it came from.
    digest
        SHA-256 of the bundle; empty when something other than Cytoray registered this version.
    created
        When it was registered, UTC.
    metrics
        Its scores on the validation data.
    tags
        Where it comes from: task, recipe, data hashes, git revision, parent.
    source
        URI of the bundle folder in the artifact store.
    """

    name: str
    version: str
    aliases: tuple[str, ...]
    run_id: str | None
    digest: str
    created: datetime
    metrics: dict[str, float]
    tags: dict[str, str]
    source: str

    @property
    def reference(self) -> str:
        """``name/version``, which always means this very version."""
        return f"{self.name}/{self.version}"

    @property
    def parent_digest(self) -> str | None:
        """Digest of the bundle whose weights it started from; None where they came from no bundle."""
        digest = self.tags.get("parent", "").rpartition(" ")[2]
        return digest if DIGEST.fullmatch(digest) else None


@dataclass(frozen=True)
class RegisteredModel:
    """A name, its aliases (alias to version), and its versions, newest first."""

    name: str
    aliases: dict[str, str]
    versions: tuple[ModelVersion, ...]


@dataclass(frozen=True)
class ModelRecord:
    """What the registry keeps of a model beside the facts about its versions.

    Attributes
    ----------
    aliases
        Alias to version.
    notes
        Tags of the model: its history, its rollouts.
    digests
        Version to digest of its bundle, of all versions.
    """

    name: str
    aliases: dict[str, str]
    notes: dict[str, str]
    digests: dict[str, str]


@dataclass(frozen=True)
class AliasMove:
    """Who moved an alias, when, from which version to which, and why.

    Attributes
    ----------
    before
        None for the first move.
    forced
        Whether it was moved although a check had failed.
    report
        Where the report of the checks lies: a folder of the run that `after` came from; empty without checks.
    """

    alias: str
    action: Literal["promote", "rollback"]
    before: str | None
    after: str
    who: str
    when: datetime
    reason: str = ""
    forced: bool = False
    report: str = ""

    def to_tag(self) -> tuple[str, str]:
        """Return key and value of the tag that records this move.

        The key sorts by time and is unique, so that two people who move an alias at once lose neither record.
        """
        stamp = self.when.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        key = f"{_MOVE_TAG}{stamp}.{secrets.token_hex(2)}"
        return key, json.dumps(asdict(self) | {"when": self.when.isoformat()})


@dataclass(frozen=True)
class Reference:
    """A parsed reference; at most one of `alias` and `version` is set."""

    name: str
    alias: str | None = None
    version: str | None = None


def parse_reference(text: str) -> Reference:
    """Parse ``name``, ``name@alias`` or ``name/version``.

    Raises
    ------
    RequestError
        If it is none of these.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise RequestError(
            f"expected a reference to a model, got {text[:200]!r}",
            field="model",
            hint="give name, name@alias, name/version or a bundle folder; a name is small letters, digits, - and _",
        )
    version = match["version"]
    return Reference(match["name"], match["alias"], str(int(version)) if version else None)


def check_name(name: str) -> None:
    """Raise RequestError unless `name` can be a model's name."""
    if not NAME.fullmatch(name):
        raise RequestError(
            f"expected the name of a model, got {name[:200]!r}",
            field="name",
            hint="use up to 64 small letters, digits, - and _, beginning with a letter or digit",
        )


def check_reason(reason: str) -> None:
    """Raise RequestError unless `reason` fits into a record."""
    if len(reason) > LONGEST_REASON:
        raise RequestError(
            f"expected a reason of at most {LONGEST_REASON} characters, got {len(reason)}",
            field="reason",
            hint="say it shorter",
        )


def moves_from_tags(tags: Mapping[str, str]) -> tuple[AliasMove, ...]:
    """Read the history of alias moves, oldest first, from the tags of a registered model."""
    moves = []
    for key, value in sorted(tags.items()):
        if key.startswith(_MOVE_TAG):
            with reading(f"the tag {key} of the model", "a move of an alias", hint="restore that tag in MLflow"):
                record = json.loads(value)
                moves.append(AliasMove(**record | {"when": datetime.fromisoformat(record["when"])}))
    return tuple(moves)


def version_before(moves: Iterable[AliasMove], alias: str, current: str | None) -> str | None:
    """Return the version that `alias` had before `current`; None when there was none.

    Promotions are put on a stack and a rollback takes one off, so that rolling back twice goes back two
    versions instead of returning to the one that was just left.
    """
    stack: list[str] = []
    for move in moves:
        if move.alias != alias:
            continue
        if not stack and move.before is not None:
            stack.append(move.before)
        if move.action == "promote":
            stack.append(move.after)
        else:
            stack = stack[: _last(stack, move.after) + 1] or [move.after]
    earlier = stack if current is None or current not in stack else stack[: _last(stack, current)]
    return earlier[-1] if earlier else None


def _last(stack: list[str], version: str) -> int:
    return len(stack) - 1 - stack[::-1].index(version) if version in stack else -1


def metric_name(name: str) -> str:
    """Return a metric's name with what MLflow does not take, as in the names of classes, replaced by underscores."""
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)


def tags_of(metrics: Mapping[str, float], facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags that record scores and facts; nested facts get dotted keys, None is left out."""
    return {f"{_METRIC_TAG}{metric_name(key)}": repr(float(value)) for key, value in metrics.items()} | flatten(facts)


def metrics_from_tags(tags: Mapping[str, str], reference: str) -> dict[str, float]:
    """Read the scores back from the tags of a version; one that is no number is left out, and the log says so."""
    scores = {}
    for key, value in tags.items():
        if key.startswith(_METRIC_TAG):
            try:
                scores[key.removeprefix(_METRIC_TAG)] = float(value)
            except ValueError:
                log.warning("the tag %s of %s is damaged: expected a number, got %r", key, reference, value[:80])
    return scores


def facts_from_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Read everything but the scores back from the tags of a version."""
    return {key: value for key, value in tags.items() if not key.startswith(_METRIC_TAG)}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten nested mappings to dotted keys and text: strings as they are, all else JSON, None left out."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        elif value is not None:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat
