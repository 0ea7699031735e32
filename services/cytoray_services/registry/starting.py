"""The start of a run in MLflow: a new one, a resumed one, or one that is stored until MLflow answers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cytoray_analysis.errors import PlatformError
from cytoray_services.registry.connection import Connection
from cytoray_services.registry.offline_run import OfflineRun, deliver, has_kept
from cytoray_services.registry.queries import experiment_id
from cytoray_services.registry.run import Run, whoami

logger = logging.getLogger(__name__)


def start_run(
    connection: Connection,
    experiment: str,
    name: str,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    *,
    run_id: str | None = None,
    keep: Path | None = None,
) -> Run:
    """Start or resume a run; parameters and errors as of :meth:`Registry.start_run`."""
    start = {"experiment": experiment, "name": name, "params": dict(params or {}), "tags": dict(tags or {})}
    if keep is None:
        return _begun(Run(connection, _running(connection, experiment, name, run_id)), start)
    try:
        if has_kept(keep):
            run_id = deliver(partial(start_run, connection), keep)[0]
        running = _running(connection, experiment, name, run_id)
        return _begun(OfflineRun(connection, running, keep, start), start)
    except PlatformError as error:
        logger.warning("%s; the run is stored in %s until MLflow answers", error.message, keep)
        return OfflineRun(connection, run_id or "", keep, start, beginning=True)


def _running(connection: Connection, experiment: str, name: str, run_id: str | None) -> str:
    """Create a run, or resume one."""
    with connection.client(create=True) as client:
        if run_id is not None:
            client.update_run(run_id, status="RUNNING")
            return run_id
        group = experiment_id(client, experiment, connection.artifact_location(experiment))
        created = client.create_run(group, run_name=name, tags={"mlflow.user": whoami()})
        return str(created.info.run_id)


def _begun(run: Run, start: Mapping[str, Any]) -> Run:
    run.log_params(start["params"])
    run.set_tags(start["tags"])
    return run
