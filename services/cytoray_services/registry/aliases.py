"""What somebody wants of an alias, and what he is told when somebody else was quicker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cytoray_analysis.errors import RequestError
from cytoray_services.registry.versions import AliasMove

ANY = "any"  # no version is called so


@dataclass(frozen=True)
class AliasRequest:
    """What somebody wants of an alias, and which version he believes that it has."""

    alias: str
    action: Literal["promote", "rollback"] = "promote"
    expected: str | None = ANY
    reason: str = ""
    forced: bool = False
    report: str = ""


def overtaken(name: str, request: AliasRequest, current: str | None, history: tuple[AliasMove, ...]) -> RequestError:
    """Return the error for an alias that has another version than was expected."""
    last = next((move for move in reversed(history) if move.alias == request.alias), None)
    by = f", moved by {last.who} at {last.when:%Y-%m-%d %H:%M:%S} UTC" if last else ""
    return RequestError(
        f"expected {name}@{request.alias} to be {_shown(request.expected)}, got {_shown(current)}{by}; "
        "nothing was changed",
        field="alias",
        hint=f"somebody was quicker; look with cytoray models show {name}@{request.alias}, and decide again",
    )


def _shown(version: str | None) -> str:
    return "no version" if version is None else f"version {version}"
