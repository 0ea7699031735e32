"""The record of a version, stored in the head of its model card for export to another registry.

The head is YAML between two lines ``---``, as in the cards of other model hubs. Nothing else of a bundle depends on the
card: its digest does not change, and earlier releases, which ignore the head, read the bundle as before.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from cytoray_analysis.plain_yaml import load_yaml

log = logging.getLogger(__name__)

_HEAD = re.compile(r"\A---\r?\n(?P<head>.*?)^---[ \t]*(?:\r?\n|\Z)\n*(?P<card>.*)\Z", re.DOTALL | re.MULTILINE)
_KEY = "cytoray"
_NOT_CARRIED = ("import.", "metric.")  # each registry records its own import, such as who allowed code to run
_OWN = frozenset({"digest", "task"})  # read from the bundle itself
_LONGEST = 5000  # characters of a tag, the maximum of MLflow


@dataclass(frozen=True)
class VersionRecord:
    """The record that is exported with a bundle.

    Attributes
    ----------
    reference
        The name of the version in its registry; empty if it was in none.
    metrics
        Scores on the validation data.
    tags
        Its origin; see :attr:`~cytoray_services.registry.ModelVersion.tags`.
    recipe
        The text of its recipe; empty if unknown or private.
    """

    reference: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    recipe: str = ""

    @property
    def carried(self) -> dict[str, str]:
        """The tags that another registry imports."""
        return {key: value for key, value in self.tags.items() if key not in _OWN and not key.startswith(_NOT_CARRIED)}


def with_record(card: str, record: VersionRecord) -> str:
    """Return a card with a record in its head; it replaces an earlier record and keeps other fields."""
    others, body = _split(card)
    ours: dict[str, Any] = {
        "reference": record.reference,
        "metrics": {name: float(value) for name, value in record.metrics.items() if math.isfinite(value)},
        "tags": record.carried,
        "recipe": record.recipe,
    }
    head = others | {_KEY: {name: value for name, value in ours.items() if value}}
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n\n{body}"


def without_record(card: str) -> str:
    """Return a card without its head."""
    return _split(card)[1]


def record_of(card: str) -> VersionRecord:
    """Read the record of a card; an empty one if there is none.

    An invalid head gives an empty record and a warning; the model stays usable.
    """
    found = _HEAD.match(card)
    if found is None:
        return VersionRecord()
    try:
        content = load_yaml(found["head"])
        ours = content.get(_KEY, {}) if isinstance(content, dict) else {}
        metrics = {str(name): float(value) for name, value in ours.get("metrics", {}).items()}
        tags = {str(name): str(value) for name, value in ours.get("tags", {}).items()}
        record = VersionRecord(str(ours.get("reference", "")), metrics, tags, str(ours.get("recipe", "")))
        if not all(map(math.isfinite, metrics.values())) or any(len(value) > _LONGEST for value in tags.values()):
            raise ValueError("a score is not a number, or a tag is too long")
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        log.warning("cannot read the scores and tags in the head of the model card, ignoring them: %s", reason)
        return VersionRecord()
    return record


def _split(card: str) -> tuple[dict[str, Any], str]:
    found = _HEAD.match(card)
    if found is None:
        return {}, card
    try:
        head = load_yaml(found["head"])
    except yaml.YAMLError:
        head = None
    # A card may begin with a line of dashes without a head.
    return (head, found["card"]) if isinstance(head, dict) else ({}, card)
