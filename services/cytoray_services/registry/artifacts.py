"""The files of runs and versions, also after the home folder was moved or copied.

MLflow stores absolute addresses of files in its database. Those below a home folder end in
``/artifacts/EXPERIMENT/RUN/artifacts…`` (:meth:`Connection.artifact_location`), so the same files are found below the
current home. Addresses are translated when they are read, and never rewritten: a home with different mount points on
two machines works on both, and a read-only home can be read.
"""

from __future__ import annotations

import contextlib
import filecmp
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from cytoray_analysis.errors import CytorayError, PlatformError
from cytoray_analysis.files import follow_umask
from cytoray_services.registry.connection import Connection
from cytoray_services.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

_BELOW_A_HOME = re.compile(
    r"(?P<home>/.*)/artifacts/(?P<experiment>.+)/(?P<rest>[0-9a-f]{32}/artifacts(?:/.*)?)", re.DOTALL
)


def present_uri(uri: str, settings: Settings) -> str:
    """Return the current address of files, given their address in the database of MLflow.

    Parameters
    ----------
    uri
        Address of the files of a run, or of a part of them.

    Returns
    -------
    str
        `uri`, unless it is below an earlier path of the home folder.
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
    """Return the absolute path of a ``file:`` address or a plain path; None for all others."""
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    return Path(uri) if uri.startswith("/") else None


def _has_moved(before: Path, after: Path, home: Path, settings: Settings) -> bool:
    """Whether the folder of an experiment has moved to the home of `settings`.

    Folders of CYTORAY_ARTIFACTS look the same but have not moved, and neither have those in the home of another user of
    the same database.
    """
    if settings.artifacts_uri is not None and local_path(settings.artifacts_uri) == before.parent:
        return False
    # Not Path.exists, which raises an error if a parent folder is not accessible.
    here, there = os.path.isdir(after), os.path.isdir(before)  # noqa: PTH112
    if settings.tracking_uri != f"sqlite:///{settings.home / 'mlflow.db'}":
        return here and not there
    return here or not there or os.path.isfile(home / "mlflow.db")  # noqa: PTH113


class RunFiles:
    """The files of one run.

    Parameters
    ----------
    client, connection
        Client and connection of the MLflow with the run.
    run_id
        The run.
    """

    def __init__(self, client: MlflowClient, connection: Connection, run_id: str) -> None:
        self.uri = present_uri(str(client.get_run(run_id).info.artifact_uri), connection.settings)
        self._tracking_uri = connection.uri

    def add_file(self, path: Path, folder: str = "") -> None:
        """Copy a file into a folder of the run."""
        with reported(self.uri, "written"):
            self._store().log_artifact(str(path), folder or None)
        self._follow_umask(Path(folder, path.name))

    def add_folder(self, path: Path, folder: str) -> None:
        """Copy the files of a folder into a folder of the run; remove incomplete copies."""
        try:
            with reported(self.uri, "written"):
                self._store().log_artifacts(str(path), folder)
            self._follow_umask(Path(folder))
            if not self.has_folder(path, folder):
                raise PlatformError(
                    f"the files in {self.uri}/{folder} differ from those that were sent",
                    hint="check the free space of the store, then try again",
                )
        except BaseException:
            self._remove_folder(folder)
            raise

    def has_folder(self, path: Path, folder: str) -> bool:
        """Whether a folder of the run contains the files of a local one.

        Compares bytes in a folder and sizes in an object store, which verifies checksums itself.
        """
        wanted = {one.relative_to(path).as_posix(): one for one in path.rglob("*") if one.is_file()}
        here = local_path(self.uri)
        if here is not None:
            there = {name: here / folder / name for name in wanted}
            return all(there[name].is_file() and filecmp.cmp(one, there[name], False) for name, one in wanted.items())
        with reported(self.uri, "read"):
            found = {one.path.removeprefix(f"{folder}/"): one.file_size for one in self._store().list_artifacts(folder)}
        return all(name in found and found[name] in (None, one.stat().st_size) for name, one in wanted.items())

    def _remove_folder(self, folder: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            with reported(self.uri, "written"):
                self._store().delete_artifacts(folder)
        except (PlatformError, MlflowException, OSError) as error:
            log.warning(
                "cannot remove the incomplete files in %s/%s, which belong to no version: %s", self.uri, folder, error
            )

    def paths(self, folder: str = "") -> set[str]:
        """Return the paths of the files in a folder of the run."""
        with reported(self.uri, "read"):
            return {file.path for file in self._store().list_artifacts(folder or None)}

    def download(self, path: str, folder: str | Path) -> Path:
        """Copy a file or folder of the run into a local folder, and return its path there."""
        with reported(self.uri, "read"):
            return Path(self._store().download_artifacts(path, str(folder)))

    def _store(self) -> Any:
        return artifact_store(self.uri, self._tracking_uri)

    def _follow_umask(self, path: Path) -> None:
        folder = local_path(self.uri)
        if folder is not None:  # a server and an object store have their own permissions
            follow_umask(folder / path)


@contextlib.contextmanager
def reported(uri: str, what: str) -> Iterator[None]:
    """Convert the errors of the library of an object store.

    Parameters
    ----------
    what
        ``read`` or ``written``.

    Raises
    ------
    PlatformError
        The store rejects the request or does not answer.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (CytorayError, MlflowException):
        raise
    except Exception as error:
        if local_path(uri) is not None:
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise PlatformError(
            f"the files in {uri} cannot be {what}: {reason}",
            field="CYTORAY_ARTIFACTS",
            hint="check that the store answers and accepts the credentials, then try again",
        ) from error


def artifact_store(uri: str, tracking_uri: str) -> Any:
    """Return MLflow's access to the files at an address, an ``ArtifactRepository``; its methods have no types."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(uri, tracking_uri=tracking_uri)
