"""A lock for the move of an alias, between all processes that share an MLflow.

MLflow has no transactions, but the database guarantees that the name of an experiment is unique: if two processes
create the same one at the same time, one fails. Such an experiment is a claim. The holder deletes it at the end, which
hides it but keeps its name, so that it cannot be claimed again. This works with SQLite, PostgreSQL and a tracking
server.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cytoray_analysis.errors import PlatformError
from cytoray_services.registry.queries import create_experiment
from cytoray_services.registry.versions import moves_from_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient

SECONDS_OF_PATIENCE = 30.0
# A holder needs a fraction of a second; one that takes longer than this has died.
SECONDS_UNTIL_ABANDONED = 20.0
_SECONDS_BETWEEN_TRIES = 0.05


@contextlib.contextmanager
def claim(client: MlflowClient, name: str, alias: str, artifact_location: str | None) -> Iterator[None]:
    """Hold the lock for `alias` of the model `name` inside the context; wait for it if needed.

    Raises
    ------
    PlatformError
        Other processes held it for half a minute.
    """
    deadline = time.monotonic() + SECONDS_OF_PATIENCE
    while True:
        number = _count_moves(client, name, alias)
        held = _take(client, f"cytoray/claims/{name}/{alias}/{number}", artifact_location)
        # The claim is valid only if the alias was not moved between counting and claiming.
        if held is not None and _count_moves(client, name, alias) == number:
            break
        if held is not None:
            client.delete_experiment(held)
        elif time.monotonic() > deadline:
            raise PlatformError(
                f"another process is moving {name}@{alias}; nothing was changed",
                field="alias",
                hint="check the history with cytoray models show, then try again",
            )
        else:
            time.sleep(_SECONDS_BETWEEN_TRIES)
    try:
        yield
    finally:
        client.delete_experiment(held)


def _take(client: MlflowClient, key: str, artifact_location: str | None) -> str | None:
    """Return the ID of a new claim, or None while another process holds one."""
    turn = 0
    while True:
        name = f"{key}.{turn}"
        made = create_experiment(client, name, artifact_location)
        if made is not None:
            return made
        other = client.get_experiment_by_name(name)
        if other is None or other.creation_time is None:
            return None
        if other.lifecycle_stage == "active":
            if time.time() - other.creation_time / 1000 < SECONDS_UNTIL_ABANDONED:
                return None
            _tidy_up(client, other.experiment_id)
        turn += 1


def _tidy_up(client: MlflowClient, abandoned: str) -> None:
    """Hide the claim of a process that died, unless another process has done so."""
    from mlflow.exceptions import MlflowException

    try:
        client.delete_experiment(abandoned)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "INVALID_PARAMETER_VALUE"):
            raise


def _count_moves(client: MlflowClient, name: str, alias: str) -> int:
    moves = moves_from_tags(client.get_registered_model(name).tags)
    return sum(move.alias == alias for move in moves)
