"""Requests to move an alias, and the error after a concurrent move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cytoray_analysis.errors import RequestError
from cytoray_services.registry.versions import AliasMove

ANY = "any"  # not the name of a version


@dataclass(frozen=True)
class AliasRequest:
    """A request to move an alias, with the version that it is expected to have."""

    alias: str
    action: Literal["promote", "rollback"] = "promote"
    expected: str | None = ANY
    reason: str = ""
    forced: bool = False
    report: str = ""


def overtaken(name: str, request: AliasRequest, current: str | None, history: tuple[AliasMove, ...]) -> RequestError:
    """Return the error for an alias that does not have the expected version."""
    last = next((move for move in reversed(history) if move.alias == request.alias), None)
    by = f", moved by {last.who} at {last.when:%Y-%m-%d %H:%M:%S} UTC" if last else ""
    return RequestError(
        f"expected {name}@{request.alias} to be {_shown(request.expected)}, got {_shown(current)}{by}; "
        "nothing was changed",
        field="alias",
        hint=f"the alias was moved meanwhile; check with cytoray models show {name}@{request.alias}, then try again",
    )


def _shown(version: str | None) -> str:
    return "no version" if version is None else f"version {version}"
