"""One MLflow run: the record of a training run."""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Literal, Self

from cytoray_analysis.errors import MissingFileError, PlatformError
from cytoray_services.registry.artifacts import RunFiles
from cytoray_services.registry.connection import Connection
from cytoray_services.registry.versions import flatten, mlflow_name

logger = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]

SECONDS_BETWEEN_BATCHES = 1.0
_METRICS_PER_BATCH = 1000
_PARAMS_PER_BATCH = 100


class Run:
    """A run that was started or resumed by :meth:`Registry.start_run`.

    As a context manager it ends the run: FINISHED, FAILED after an error, or KILLED after Ctrl-C. Without
    ``with`` the run stays open, so that a worker can write to the run of its driver; it must call
    :meth:`flush`.

    Parameters
    ----------
    connection
        The connection to MLflow.
    run_id
        ID of the run in MLflow.
    """

    def __init__(self, connection: Connection, run_id: str) -> None:
        self.run_id = run_id
        self._connection = connection
        self._waiting: list[tuple[str, float, int, int]] = []  # name, value, milliseconds, step
        self._sent = 0.0

    @property
    def kept(self) -> bool:
        """Whether there is something that MLflow does not know; see :class:`OfflineRun`."""
        return False

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers of one step.

        They are sent in batches, at most one per second. While MLflow is unreachable they are kept, with a
        warning, so that the training run continues.
        """
        now = int(time.time() * 1000)
        self._waiting += [(mlflow_name(key), float(value), now, step) for key, value in values.items()]
        if time.monotonic() - self._sent < SECONDS_BETWEEN_BATCHES:
            return
        try:
            self.flush()
        except PlatformError as error:
            logger.warning("%s; %d metrics are kept until it answers", error.message, len(self._waiting))

    def log_entries(self, entries: Sequence[Sequence[Any]]) -> None:
        """Record earlier numbers: (name, value, milliseconds since 1970, step) each."""
        self._waiting += [(name, value, milliseconds, step) for name, value, milliseconds, step in entries]
        self.flush()

    def flush(self) -> None:
        """Send the queued metrics.

        Raises
        ------
        PlatformError
            MLflow does not answer; the metrics are kept.
        """
        while self._waiting:
            with self._connection.client() as client:
                from mlflow.entities import Metric

                batch = [Metric(*entry) for entry in self._waiting[:_METRICS_PER_BATCH]]
                client.log_batch(self.run_id, metrics=batch)
            del self._waiting[:_METRICS_PER_BATCH]
        self._sent = time.monotonic()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record the parameters of the run; nested mappings get dotted names.

        An existing parameter keeps its first value, because MLflow never changes one.
        """
        with self._connection.client() as client:
            from mlflow.entities import Param

            known = client.get_run(self.run_id).data.params
            new = [Param(key, value) for key, value in flatten(params).items() if key not in known]
            for start in range(0, len(new), _PARAMS_PER_BATCH):
                client.log_batch(self.run_id, params=new[start : start + _PARAMS_PER_BATCH])

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags, replacing those of the same name; nested mappings get dotted names."""
        with self._connection.client() as client:
            from mlflow.entities import RunTag

            entries = [RunTag(key, value) for key, value in flatten(tags).items()]
            for start in range(0, len(entries), _PARAMS_PER_BATCH):
                client.log_batch(self.run_id, tags=entries[start : start + _PARAMS_PER_BATCH])

    def log_file(self, path: str | Path, folder: str = "") -> None:
        """Copy a file into a folder of the run.

        Raises
        ------
        MissingFileError
            There is no such file.
        """
        if not Path(path).is_file():
            raise MissingFileError(f"expected a file, {path} does not exist", field=str(path))
        with self._connection.client() as client:
            RunFiles(client, self._connection, self.run_id).add_file(Path(path), folder)

    def log_bytes(self, data: bytes, path: str) -> None:
        """Store `data`, such as a PNG picture, as the file `path` of the run."""
        target = PurePosixPath(path)
        with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
            local = Path(folder, target.name)
            local.write_bytes(data)
            self.log_file(local, "" if target.parent == PurePosixPath(".") else str(target.parent))

    def log_text(self, text: str, path: str) -> None:
        """Store text as the UTF-8 file `path` of the run."""
        self.log_bytes(text.encode(), path)

    def read_text(self, path: str) -> str | None:
        """Return the UTF-8 file `path` of the run; None if it does not exist.

        Raises
        ------
        PlatformError
            MLflow does not answer.
        """
        folder = str(PurePosixPath(path).parent)
        with self._connection.client() as client:
            files = RunFiles(client, self._connection, self.run_id)
            if path not in files.paths("" if folder == "." else folder):
                return None
            with tempfile.TemporaryDirectory(prefix="cytoray-") as scratch:
                return files.download(path, scratch).read_text(encoding="utf-8")

    def end(self, status: Status = "FINISHED") -> None:
        """Send the queued metrics and close the run.

        Raises
        ------
        PlatformError
            MLflow does not answer.
        """
        self.flush()
        # MLflow prints the addresses of runs to standard output, which is reserved for the answer.
        with self._connection.client() as client, contextlib.redirect_stdout(sys.stderr):
            client.set_terminated(self.run_id, status)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.end()
            return
        try:
            self.end("FAILED" if isinstance(error, Exception) else "KILLED")
        except PlatformError as unreachable:  # must not hide the first error
            logger.warning("cannot mark the run %s as failed: %s", self.run_id, unreachable.message)


def whoami() -> str:
    """Return user and host of this process, for records."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # the user of a container may have no name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
