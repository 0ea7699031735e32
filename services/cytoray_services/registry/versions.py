"""Models, versions and references of the registry, as plain data without MLflow.

A reference is ``name``, ``name@alias`` or ``name/version``. MLflow numbers versions from 1 again if a model is
deleted and created again; ``name/version#digest`` always means the same version, and is the form for programs.
Two aliases have a meaning: ``candidate`` is the newest trained version, ``champion`` the one that is served.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal

from cytoray_analysis.errors import RequestError
from cytoray_services.records import reading

log = logging.getLogger(__name__)

CANDIDATE = "candidate"
CHAMPION = "champion"

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
DIGEST = re.compile(r"[0-9a-f]{64}")
_REFERENCE = re.compile(
    rf"(?P<name>{NAME.pattern})"
    rf"(?:@(?P<alias>[A-Za-z][\w-]*)|/(?P<version>[0-9]{{1,9}})(?:#(?P<digest>{DIGEST.pattern}))?)?"
)

_METRIC_TAG = "metric."
_MOVE_TAG = "alias_history."

LONGEST_REASON = 2000  # characters; MLflow stores up to 5000 of a record


@dataclass(frozen=True)
class ModelVersion:
    """One version of a registered model.

    Attributes
    ----------
    name, version
        Its reference: ``name/version``.
    aliases
        The aliases that point to it, sorted.
    run_id
        The MLflow run of the version.
    digest
        SHA-256 of the bundle; empty if the version was not registered by Cytoray.
    created
        Time of registration, UTC.
    metrics
        Its scores on the validation data.
    tags
        Its origin: task, recipe, data hashes, git revision, parent.
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
        """``name/version``, for display."""
        return f"{self.name}/{self.version}"

    @property
    def exact_reference(self) -> str:
        """``name/version#digest``, which always means the same version."""
        return exact_reference(self.name, self.version, self.digest)

    @property
    def parent_digest(self) -> str | None:
        """Digest of the bundle that its training started from; None without one."""
        digest = self.tags.get("parent", "").rpartition(" ")[2]
        return digest if DIGEST.fullmatch(digest) else None

    def describe(self) -> dict[str, Any]:
        """Return the version as a JSON object."""
        facts = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"model": facts.pop("name"), **facts}


@dataclass(frozen=True)
class RegisteredModel:
    """A name, its aliases (alias to version), and its versions, newest first."""

    name: str
    aliases: dict[str, str]
    versions: tuple[ModelVersion, ...]


@dataclass(frozen=True)
class ModelRecord:
    """The record of a model in the registry, without its versions.

    Attributes
    ----------
    aliases
        Alias to version.
    notes
        Tags of the model: its history, its rollouts.
    digests
        Version to digest of its bundle.
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
        Whether it was moved although a check failed.
    report
        Folder of the report of the checks, in the run of `after`; empty without checks.
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

        The key sorts by time and is unique, so that concurrent moves keep both records.
        """
        stamp = self.when.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        key = f"{_MOVE_TAG}{stamp}.{secrets.token_hex(2)}"
        return key, json.dumps(asdict(self) | {"when": self.when.isoformat()})


@dataclass(frozen=True)
class Reference:
    """A parsed reference; at most one of `alias` and `version` is set, and `digest` only with `version`."""

    name: str
    alias: str | None = None
    version: str | None = None
    digest: str | None = None


def exact_reference(name: str, version: str, digest: str) -> str:
    """Return the exact reference of a version; only its number for a version without a digest."""
    return f"{name}/{version}#{digest}" if DIGEST.fullmatch(digest) else f"{name}/{version}"


def parse_reference(text: str) -> Reference:
    """Parse ``name``, ``name@alias``, ``name/version`` or ``name/version#digest``.

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
            hint="use name, name@alias, name/version or a bundle folder; names: lower-case letters, digits, - and _",
        )
    version = match["version"]
    return Reference(match["name"], match["alias"], str(int(version)) if version else None, match["digest"])


def check_name(name: str) -> None:
    """Raise RequestError unless `name` is valid for a model."""
    if not NAME.fullmatch(name):
        raise RequestError(
            f"expected the name of a model, got {name[:200]!r}",
            field="name",
            hint="use up to 64 lower-case letters, digits, - and _, starting with a letter or digit",
        )


def check_reason(reason: str) -> None:
    """Raise RequestError unless `reason` fits into a record."""
    if len(reason) > LONGEST_REASON:
        raise RequestError(
            f"expected a reason of at most {LONGEST_REASON} characters, got {len(reason)}",
            field="reason",
            hint="shorten it",
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
    """Return the version that `alias` had before `current`; None without one.

    A promotion pushes to a stack and a rollback pops, so that two rollbacks go back two versions instead of
    returning to the first one.
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


def mlflow_name(name: str) -> str:
    """Return the name of a metric, parameter or tag, with underscores for characters that MLflow does not accept."""
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)


def tags_of(metrics: Mapping[str, float], facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags for scores and facts; nested facts get dotted keys, None is omitted."""
    return {f"{_METRIC_TAG}{mlflow_name(key)}": repr(float(value)) for key, value in metrics.items()} | flatten(facts)


def metrics_from_tags(tags: Mapping[str, str], reference: str) -> dict[str, float]:
    """Read the scores from the tags of a version; a score that is not a number is omitted with a warning."""
    scores = {}
    for key, value in tags.items():
        if key.startswith(_METRIC_TAG):
            try:
                scores[key.removeprefix(_METRIC_TAG)] = float(value)
            except ValueError:
                log.warning("the tag %s of %s is damaged: expected a number, got %r", key, reference, value[:80])
    return scores


def facts_from_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Read everything except the scores from the tags of a version."""
    return {key: value for key, value in tags.items() if not key.startswith(_METRIC_TAG)}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten nested mappings to dotted keys and text: strings unchanged, other values as JSON, None omitted."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        elif value is not None:
            flat[mlflow_name(f"{prefix}{key}")] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat
