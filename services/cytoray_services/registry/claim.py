"""One at a time: the right to move an alias, held by one process among all that share an MLflow.

MLflow has no transactions, but the name of an experiment is unique, and a database sees to that: of two processes that
create the same one at the same moment, one is refused. Such an experiment is a claim. It is deleted when the holder is
done, which hides it and keeps its name taken, so that it can never be claimed again. This holds for SQLite, PostgreSQL
and a tracking server alike.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cytoray_analysis.errors import PlatformError
from cytoray_services.registry.versions import moves_from_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient

SECONDS_OF_PATIENCE = 30.0
# A holder needs a fraction of a second; one that still holds after this has died.
SECONDS_UNTIL_ABANDONED = 20.0
_SECONDS_BETWEEN_TRIES = 0.05


@contextlib.contextmanager
def claim(client: MlflowClient, name: str, alias: str, artifact_location: str | None) -> Iterator[None]:
    """Hold the right to move `alias` of the model `name` for as long as the block runs; wait for it where needed.

    Raises
    ------
    PlatformError
        Others held it for half a minute.
    """
    deadline = time.monotonic() + SECONDS_OF_PATIENCE
    while True:
        number = _count_moves(client, name, alias)
        held = _take(client, f"cytoray/claims/{name}/{alias}/{number}", artifact_location)
        # What was taken is worth something only if nobody has moved the alias between counting and taking.
        if held is not None and _count_moves(client, name, alias) == number:
            break
        if held is not None:
            client.delete_experiment(held)
        elif time.monotonic() > deadline:
            raise PlatformError(
                f"{name}@{alias} is being moved by others; nothing was changed",
                field="alias",
                hint="look at the history with cytoray models show, and try again",
            )
        else:
            time.sleep(_SECONDS_BETWEEN_TRIES)
    try:
        yield
    finally:
        client.delete_experiment(held)


def _take(client: MlflowClient, key: str, artifact_location: str | None) -> str | None:
    """Return the identifier of a claim of ours, or None while another process holds one."""
    from mlflow.exceptions import MlflowException

    turn = 0
    while True:
        name = f"{key}.{turn}"
        try:
            return str(client.create_experiment(name, artifact_location=artifact_location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        other = client.get_experiment_by_name(name)
        if other is None or other.creation_time is None:
            return None
        if other.lifecycle_stage == "active":
            if time.time() - other.creation_time / 1000 < SECONDS_UNTIL_ABANDONED:
                return None
            _tidy_up(client, other.experiment_id)
        turn += 1


def _tidy_up(client: MlflowClient, abandoned: str) -> None:
    """Hide the claim of a process that died; another process may be quicker."""
    from mlflow.exceptions import MlflowException

    try:
        client.delete_experiment(abandoned)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "INVALID_PARAMETER_VALUE"):
            raise


def _count_moves(client: MlflowClient, name: str, alias: str) -> int:
    moves = moves_from_tags(client.get_registered_model(name).tags)
    return sum(move.alias == alias for move in moves)
