"""The number of comparisons on an evaluation set: each one makes it likelier that a candidate passes by luck."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from cytoray_services.records import reading
from cytoray_services.registry import Registry

_TAG = "comparison."
# The smallest digests of the images are recorded: sets that share many images share some of these
# (the bottom-k sketch: Broder, On the resemblance and containment of documents, 1997).
_NOTED, _LETTERS = 32, 16


def attempt_of(
    registry: Registry, name: str, frozen: str, candidate: str, champion: str, images: Iterable[str] = ()
) -> int:
    """Return the number of a comparison on an evaluation set, from 1; record a new one.

    The same two versions on the same set are the same comparison, even if it is repeated. Sets that share many images
    count as one set: renamed files or additional images do not reset the level.

    Parameters
    ----------
    name
        Name of the model.
    frozen, candidate, champion
        Digests of the set and of the two versions.
    images
        Digests of the images in the set.
    """
    wanted = {"set": frozen, "candidate": candidate, "champion": champion}
    sketch = sorted(digest[:_LETTERS] for digest in images)[:_NOTED]
    known = _comparisons(registry, name, frozen, sketch)
    if wanted not in map(_named, known):
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        # Its number is at least this, even if a wrong clock sorts it before others.
        noted = {**wanted, "images": sketch, "number": len(known) + 1}
        registry.note(name, {f"{_TAG}{stamp}.{secrets.token_hex(2)}": json.dumps(noted)})
        known = _comparisons(registry, name, frozen, sketch)  # another process may have recorded one meanwhile
    at = list(map(_named, known)).index(wanted)
    return max(at + 1, int(known[at].get("number", 1)))


def _named(one: dict[str, Any]) -> dict[str, Any]:
    return {part: one[part] for part in ("set", "candidate", "champion")}


def _comparisons(registry: Registry, name: str, frozen: str, sketch: list[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for key, value in sorted(registry.notes(name).items()):
        if key.startswith(_TAG):
            with reading(f"the tag {key} of the model {name}", "a comparison", hint="restore that tag in MLflow"):
                one = json.loads(value)
                alike = one["set"] == frozen or set(sketch).intersection(one.get("images", ()))
                if alike and _named(one) not in map(_named, found):
                    found.append(one)
    return found
