"""Where the files of runs and versions lie, also after the home folder was moved or copied.

MLflow keeps absolute addresses of files in its database. Those below a home folder end in
``/artifacts/EXPERIMENT/RUN/artifacts…`` (:meth:`Connection.artifact_location`), so the same files are found below the
home of today. Addresses are translated when they are read, and never rewritten: a home that two machines mount at two
places works from both, and one that cannot be written to can be read.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from cytoray_analysis.files import follow_umask
from cytoray_services.registry.connection import Connection
from cytoray_services.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

_BELOW_A_HOME = re.compile(
    r"(?P<home>/.*)/artifacts/(?P<experiment>.+)/(?P<rest>[0-9a-f]{32}/artifacts(?:/.*)?)", re.DOTALL
)


def present_uri(uri: str, settings: Settings) -> str:
    """Return where the files at an address of MLflow's database lie now.

    Parameters
    ----------
    uri
        Address of the files of a run, or of something among them.

    Returns
    -------
    str
        `uri` itself, unless it lies below an earlier place of the home folder.
    """
    path = local_path(uri)
    found = None if path is None else _BELOW_A_HOME.fullmatch(str(path))
    if found is None or Path(found["home"]) == settings.home:
        return uri
    before, after = Path(found["home"], "artifacts", found["experiment"]), settings.artifacts / found["experiment"]
    if _has_moved(before, after, Path(found["home"]), settings):
        return (after / found["rest"]).as_uri()
    return uri


def local_path(uri: str) -> Path | None:
    """Return the absolute path that a ``file:`` address or a plain path names; None for all others."""
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    return Path(uri) if uri.startswith("/") else None


def _has_moved(before: Path, after: Path, home: Path, settings: Settings) -> bool:
    """Whether an experiment's folder below another home is now that below the home of `settings`.

    Folders that CYTORAY_ARTIFACTS named look the same but stay where they are; so do those of a colleague whose home
    is not this one, where a database is shared.
    """
    if settings.artifacts_uri is not None and local_path(settings.artifacts_uri) == before.parent:
        return False
    # Not Path.exists, which raises where a folder above may not be entered.
    here, there = os.path.isdir(after), os.path.isdir(before)  # noqa: PTH112
    if settings.tracking_uri != f"sqlite:///{settings.home / 'mlflow.db'}":
        return here and not there
    return here or not there or os.path.isfile(home / "mlflow.db")  # noqa: PTH113


class RunFiles:
    """The files of one run.

    Parameters
    ----------
    client, connection
        Of the MLflow that knows the run.
    run_id
        Which run.
    """

    def __init__(self, client: MlflowClient, connection: Connection, run_id: str) -> None:
        self.uri = present_uri(str(client.get_run(run_id).info.artifact_uri), connection.settings)
        self._tracking_uri = connection.uri

    def add_file(self, path: Path, folder: str = "") -> None:
        """Copy a file into a folder of the run."""
        self._store().log_artifact(str(path), folder or None)
        self._follow_umask(Path(folder, path.name))

    def add_folder(self, path: Path, folder: str) -> None:
        """Copy what a folder holds into a folder of the run."""
        self._store().log_artifacts(str(path), folder)
        self._follow_umask(Path(folder))

    def paths(self, folder: str = "") -> set[str]:
        """Return the paths of what a folder of the run holds."""
        return {file.path for file in self._store().list_artifacts(folder or None)}

    def download(self, path: str, folder: str | Path) -> Path:
        """Copy a file or folder of the run into a local folder, and return where it is there."""
        return Path(self._store().download_artifacts(path, str(folder)))

    def _store(self) -> Any:
        return artifact_store(self.uri, self._tracking_uri)

    def _follow_umask(self, path: Path) -> None:
        folder = local_path(self.uri)
        if folder is not None:  # a server and an object store have rights of their own
            follow_umask(folder / path)


def artifact_store(uri: str, tracking_uri: str) -> Any:
    """Return MLflow's access to the files at an address, an ``ArtifactRepository``; its methods have no types."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(uri, tracking_uri=tracking_uri)
