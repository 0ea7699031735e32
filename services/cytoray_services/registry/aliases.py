"""Moves of an alias to a version of a model, and the error after a concurrent move."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from cytoray_analysis.errors import RequestError
from cytoray_services.registry.queries import aliases_of, find_version, no_such_version
from cytoray_services.registry.run import whoami
from cytoray_services.registry.shipped import VERSION as SHIPPED
from cytoray_services.registry.shipped import ShippedModels
from cytoray_services.registry.versions import CHAMPION, AliasMove, Reference

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowModelVersion

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


def move_alias(
    client: MlflowClient,
    shipped: ShippedModels,
    name: str,
    version: str,
    request: AliasRequest,
    history: tuple[AliasMove, ...],
) -> tuple[MlflowModelVersion | None, dict[str, str]]:
    """Move an alias to a version and record the move, unless both were done before.

    Returns
    -------
    version
        MLflow's record of the version; None for the shipped version.
    aliases
        The aliases of the model after the move.

    Raises
    ------
    ModelNotFoundError
        There is no such version.
    RequestError
        The alias does not have the expected version, or cannot have the shipped one.
    """
    alias, aliases = request.alias, shipped.aliases(name, aliases_of(client, name))
    to_shipped = version == SHIPPED and name in shipped
    if to_shipped and alias != CHAMPION:
        raise RequestError(
            f"expected the alias {CHAMPION} for {name}/{SHIPPED}, which comes with Cytoray, got {alias!r}",
            field="alias",
            hint=f"register a copy: cytoray models export {name}/{SHIPPED} FOLDER, then cytoray models import FOLDER",
        )
    found = None if to_shipped else find_version(client, name, version)
    if found is None and not to_shipped:
        raise no_such_version(client, Reference(name, version=version), aliases)
    current = aliases.get(alias)
    if request.expected not in (ANY, current):
        raise _overtaken(name, request, current, history)
    recorded = next((move.after for move in reversed(history) if move.alias == alias), None)
    if current != version and to_shipped:  # it is the champion of a name without another
        client.delete_registered_model_alias(name, alias)
    elif current != version:
        client.set_registered_model_alias(name, alias, version)
    if current != version or recorded != version:  # the latter if a process died between the move and its record
        before, when = current if current != version else recorded, datetime.now(UTC)
        move = AliasMove(
            alias, request.action, before, version, whoami(), when, request.reason, request.forced, request.report
        )
        client.set_registered_model_tag(name, *move.to_tag())
    return found, aliases | {alias: version}


def _overtaken(name: str, request: AliasRequest, current: str | None, history: tuple[AliasMove, ...]) -> RequestError:
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
