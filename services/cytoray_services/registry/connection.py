"""The connection to MLflow: opened at first use, with short timeouts and converted errors.

MLflow is imported at first use, because that takes a second. It gets explicit addresses; its global state and the
environment of the process are not changed.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from cytoray_analysis.errors import CytorayError, ModelNotFoundError, PlatformError, RequestError
from cytoray_services.locks import locked
from cytoray_services.registry.database_faults import database_fault, is_of_database
from cytoray_services.registry.mlflow_settings import prepare_mlflow, quick_requests
from cytoray_services.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

SECONDS_TO_CONNECT = 3.0
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


class Connection:
    """A lazily opened connection to the MLflow of some settings.

    Parameters
    ----------
    settings
        Settings with the `tracking_uri`.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.uri = settings.tracking_uri

    @contextlib.contextmanager
    def client(self, *, model: str | None = None, quick: bool = False, create: bool = False) -> Iterator[MlflowClient]:
        """Yield the client for a few calls.

        Parameters
        ----------
        model
            The requested name or reference, for the error if there is no registry.
        create
            Create the database of the registry if it does not exist; otherwise that is an error.
        quick
            Time out after seconds, see :func:`~.mlflow_settings.quick_requests`: for small queries, not for files.

        Raises
        ------
        PlatformError
            MLflow does not answer, or fails.
        ModelNotFoundError, RequestError
            MLflow rejects the request.
        """
        if not create and not self.is_there:  # MLflow would create the file, but a reader creates nothing
            named = "" if model is None else f" {model!r}"
            raise ModelNotFoundError(
                f"there is no model{named}: the registry {self._file} does not exist yet",
                field="model",
                hint="train one: cytoray train RECIPE; or set CYTORAY_HOME to the folder with your models",
            )
        # MLflow itself would retry for minutes.
        _require_answer(self.uri)
        with quick_requests() if quick else contextlib.nullcontext():
            client = self._client
            with self._translating():
                yield client

    @property
    def is_there(self) -> bool:
        """Whether the registry exists: a server, or the file of a SQLite database."""
        return self._file is None or self._file.exists()

    @property
    def _file(self) -> Path | None:
        scheme, _, file = self.uri.partition(":///")
        file = file.partition("?")[0]
        return Path(file) if scheme == "sqlite" and file not in ("", ":memory:") else None

    def artifact_location(self, experiment: str) -> str | None:
        """Return where a new experiment stores its files; None leaves the choice to the server."""
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
    def _client(self) -> MlflowClient:
        prepare_mlflow()
        from mlflow import MlflowClient

        # Otherwise it logs two lines for every new database and one for every migration.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        with self._translating(), self._alone():
            client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
            client.search_experiments(max_results=1)
            client.search_registered_models(max_results=1)
        return client

    @contextlib.contextmanager
    def _translating(self) -> Iterator[None]:
        """Turn errors of MLflow and of its database into ours."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            raise _translated(error, self.shown_uri) from error
        except Exception as error:
            fault = _of_database(error, self.shown_uri)
            if fault is None:
                raise
            raise fault from error

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Allow one process at a time to create the tables of a SQLite file, which MLflow does not ensure."""
        if not self.uri.startswith("sqlite:"):
            yield
            return
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self.settings.home / "mlflow.lock"))
            except OSError as error:
                raise PlatformError(
                    f"cannot write to {self.settings.home}: {error.strerror}",
                    field="CYTORAY_HOME",
                    hint="set CYTORAY_HOME to a folder that you can write to",
                ) from error
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
            hint="start the server, or correct MLFLOW_TRACKING_URI; without this variable, a local file is used",
        ) from error


def _greet_postgresql(connection: socket.socket) -> None:
    """Request encryption; any answer shows that the server runs. MLflow would retry for minutes."""
    connection.sendall(struct.pack("!ii", 8, 80877103))  # SSLRequest of the frontend/backend protocol
    if not connection.recv(1):
        raise ConnectionResetError("it closed the connection")


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
    """Return the message for an error of the database of MLflow; None for any other error."""
    return database_fault(str(error), uri) if is_of_database(error) else None
