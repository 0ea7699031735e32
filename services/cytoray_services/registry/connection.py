"""The connection to MLflow: opened at first use, quick to notice that nobody answers, its errors made ours.

MLflow is imported at first use, since that takes a second. It gets explicit addresses: nothing is set in its
global state, and nothing stays in the environment of the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from cytoray_analysis.errors import CytorayError, ModelNotFoundError, PlatformError, RequestError
from cytoray_services.registry.database_faults import database_fault, is_of_database
from cytoray_services.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

SECONDS_TO_CONNECT = 3.0
SECONDS_TO_ANSWER = 5
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


class Connection:
    """A lazily opened connection to the MLflow of some settings.

    Parameters
    ----------
    settings
        Whose `tracking_uri` is talked to.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.uri = settings.tracking_uri

    @contextlib.contextmanager
    def client(self, *, model: str | None = None, quick: bool = False, create: bool = False) -> Iterator[MlflowClient]:
        """Lend the client for a few calls.

        Parameters
        ----------
        model
            The name or the reference that is asked for, for the error where there is no registry.
        create
            Make the registry's database where there is none; else there is no model in it.
        quick
            Give up after :data:`SECONDS_TO_ANSWER` where MLflow would wait and try again for a quarter of an hour:
            for questions, whose answers are small; not for files.

        Raises
        ------
        PlatformError
            MLflow does not answer, or answers with a fault of its own.
        ModelNotFoundError, RequestError
            What MLflow says about the caller's wish.
        """
        if not create and not self.is_there:  # MLflow would make the file, and who only reads makes nothing
            named = "" if model is None else f" {model!r}"
            raise ModelNotFoundError(
                f"there is no model{named}; there is none yet in {self._file}, which does not exist",
                field="model",
                hint="train one: cytoray train RECIPE; or let CYTORAY_HOME name the folder that holds your models",
            )
        # MLflow itself would retry for minutes before it gives up.
        _require_answer(self.uri)
        with default_environment(**_IMPATIENCE) if quick else contextlib.nullcontext():
            client, mlflow_error = self._client
            try:
                yield client
            except mlflow_error as error:
                raise _translated(error, self.shown_uri) from error
            except Exception as error:
                fault = _of_database(error, self.shown_uri)
                if fault is None:
                    raise
                raise fault from error

    @property
    def is_there(self) -> bool:
        """Whether there is something to ask: a server, or the file of a SQLite database."""
        return self._file is None or self._file.exists()

    @property
    def _file(self) -> Path | None:
        scheme, _, file = self.uri.partition(":///")
        file = file.partition("?")[0]
        return Path(file) if scheme == "sqlite" and file not in ("", ":memory:") else None

    def artifact_location(self, experiment: str) -> str | None:
        """Return where a new experiment keeps its files; None leaves the choice to the server."""
        if urlsplit(self.uri).scheme in ("http", "https", "databricks"):
            return None
        if self.settings.artifacts_uri is not None:
            return f"{self.settings.artifacts_uri.rstrip('/')}/{experiment}"
        return (self.settings.artifacts / experiment).as_uri()

    @property
    def shown_uri(self) -> str:
        """The address without a password."""
        parts = urlsplit(self.uri)
        if parts.password is None:
            return self.uri
        return parts._replace(netloc=f"{parts.username}:***@{parts.netloc.rpartition('@')[2]}").geturl()

    @cached_property
    def _client(self) -> tuple[MlflowClient, type[MlflowException]]:
        # MLflow reports its usage to its makers; here only when the user chose so.
        with default_environment(MLFLOW_DISABLE_TELEMETRY="true"):
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException

        # Two lines about every new database and one about every migration.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        try:
            with self._alone():
                client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
                client.search_experiments(max_results=1)
                client.search_registered_models(max_results=1)
        except MlflowException as error:
            raise _translated(error, self.shown_uri) from error
        except Exception as error:
            fault = _of_database(error, self.shown_uri)
            if fault is None:
                raise
            raise fault from error
        return client, MlflowException

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one process at a time make the tables of a SQLite file; MLflow does not see to that itself."""
        if not self.uri.startswith("sqlite:"):
            yield
            return
        try:
            self.settings.home.mkdir(parents=True, exist_ok=True)
            lock = (self.settings.home / "mlflow.lock").open("w")
        except OSError as error:
            raise PlatformError(
                f"cannot write to {self.settings.home}: {error.strerror}",
                field="CYTORAY_HOME",
                hint="set CYTORAY_HOME to a folder of your own",
            ) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _require_answer(uri: str) -> None:
    parts = urlsplit(uri)
    scheme = parts.scheme.partition("+")[0]
    if parts.hostname is None or scheme not in _PORTS or _behind_proxy(scheme, parts.hostname):
        return
    address = parts.hostname, parts.port or _PORTS[scheme]
    try:
        with socket.create_connection(address, timeout=SECONDS_TO_CONNECT) as connection:
            if scheme == "postgresql":
                _greet_postgresql(connection)
    except OSError as error:
        raise PlatformError(
            f"MLflow at {address[0]}:{address[1]} does not answer: {error.strerror or error}",
            field="MLFLOW_TRACKING_URI",
            hint="start the server or correct MLFLOW_TRACKING_URI; without that variable a local file is used",
        ) from error


def _greet_postgresql(connection: socket.socket) -> None:
    """Ask whether encryption is spoken; any answer will do. MLflow would try for minutes to get one."""
    connection.sendall(struct.pack("!ii", 8, 80877103))  # SSLRequest of the frontend/backend protocol
    if not connection.recv(1):
        raise ConnectionResetError("it hung up")


def _behind_proxy(scheme: str, host: str) -> bool:
    return scheme in getproxies() and not proxy_bypass(host)


def _translated(error: MlflowException, uri: str) -> CytorayError:
    if fault := database_fault(str(error.message), uri):
        return fault
    message = f"MLflow: {error.message}"
    if error.error_code == "RESOURCE_DOES_NOT_EXIST":
        return ModelNotFoundError(message)
    if error.error_code == "INVALID_PARAMETER_VALUE":
        return RequestError(message)
    return PlatformError(message, hint=f"the registry is {uri}; see its log")


def _of_database(error: Exception, uri: str) -> PlatformError | None:
    """Return the sentence for an error of the database under MLflow; None for any other error."""
    return database_fault(str(error), uri) if is_of_database(error) else None


# MLflow reads them at every request.
_IMPATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(SECONDS_TO_ANSWER),
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}
_lent: Counter[str] = Counter()
_lending = threading.Lock()


@contextlib.contextmanager
def default_environment(**variables: str) -> Iterator[None]:
    """Set variables for a moment, unless the user has set them: some habits of MLflow know no other switch.

    Threads may overlap: a variable goes when the last of them is done with it.
    """
    with _lending:
        mine = [name for name in variables if _lent[name] or name not in os.environ]
        os.environ.update({name: variables[name] for name in mine if not _lent[name]})
        _lent.update(mine)
    try:
        yield
    finally:
        with _lending:
            _lent.subtract(mine)
            for name in mine:
                if not _lent[name]:
                    os.environ.pop(name, None)
