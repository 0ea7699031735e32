"""How often an evaluation set was asked: each comparison makes it likelier that one candidate passes by luck."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime

from cytoray_services.records import reading
from cytoray_services.registry import Registry

_TAG = "comparison."


def attempt_of(registry: Registry, name: str, frozen: str, candidate: str, champion: str) -> int:
    """Return the number of a comparison among all on one evaluation set, from 1; a new one is noted.

    The same two versions on the same set are the same comparison, however often they are compared.

    Parameters
    ----------
    name
        Of the model.
    frozen, candidate, champion
        Digests of the set and of the two versions.
    """
    wanted = {"set": frozen, "candidate": candidate, "champion": champion}
    known = _comparisons(registry, name, frozen)
    if wanted not in known:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        registry.note(name, {f"{_TAG}{stamp}.{secrets.token_hex(2)}": json.dumps(wanted)})
        known = _comparisons(registry, name, frozen)  # another process may have noted one meanwhile
    return known.index(wanted) + 1


def _comparisons(registry: Registry, name: str, frozen: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for key, value in sorted(registry.notes(name).items()):
        if key.startswith(_TAG):
            with reading(f"the tag {key} of the model {name}", "a comparison", hint="restore that tag in MLflow"):
                one = json.loads(value)
                if one["set"] == frozen and one not in found:
                    found.append(one)
    return found
