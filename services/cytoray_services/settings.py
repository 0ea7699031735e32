"""Where this installation keeps its state, and which registry it talks to.

Four environment variables, read in one place:

``CYTORAY_HOME``
    The folder for everything that Cytoray keeps; default ``.cytoray`` in the working directory.
``MLFLOW_TRACKING_URI``
    The MLflow server that is the registry; default a SQLite file under the home folder.
``CYTORAY_ARTIFACTS``
    Where new experiments keep their files when the registry is a database, such as ``s3://bucket/models``; default a
    folder under the home folder. A server keeps its own.
``CYTORAY_CACHE``
    Where decoded images lie, best on a disk of this machine alone; default a folder under the home folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cytoray_analysis.errors import RequestError

DEFAULT_HOME = ".cytoray"


class Settings(BaseModel):
    """The settings of one process.

    Parameters
    ----------
    home
        Absolute path of the state folder. It need not exist yet; whoever writes there creates it.
    tracking_uri
        Address of the MLflow tracking server and registry.
    artifacts_uri
        Where files of runs go that no server keeps; None for :attr:`artifacts`.
    cache_folder
        Where decoded images lie; None for a folder under `home`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path
    tracking_uri: str
    artifacts_uri: str | None = None
    cache_folder: Path | None = None

    @property
    def cache(self) -> Path:
        """Folder of decoded images, which need not outlive the machine."""
        return self.cache_folder or self.home / "cache"

    @property
    def artifacts(self) -> Path:
        """Folder of run artifacts; used only without `artifacts_uri`, and by no server, since that keeps its own."""
        return self.home / "artifacts"

    @property
    def models(self) -> Path:
        """Cache of fetched bundles, one folder per digest."""
        return self.home / "models"


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from the environment; touches no file.

    Parameters
    ----------
    environment
        Variables to read instead of ``os.environ``. A variable set to nothing counts as unset.

    Returns
    -------
    Settings
        With ``home`` made absolute, so that workers started in another directory find the same state.

    Raises
    ------
    RequestError
        If ``CYTORAY_HOME`` names something that exists and is no folder.
    """
    variables = os.environ if environment is None else environment
    home = Path(variables.get("CYTORAY_HOME") or DEFAULT_HOME).expanduser().absolute()
    if home.exists() and not home.is_dir():
        raise RequestError(
            f"expected CYTORAY_HOME to be a folder or not to exist yet, got the file {home}",
            field="CYTORAY_HOME",
            hint="set CYTORAY_HOME to another path or move that file away",
        )
    return Settings(
        home=home,
        tracking_uri=variables.get("MLFLOW_TRACKING_URI") or _local_tracking_uri(home),
        artifacts_uri=variables.get("CYTORAY_ARTIFACTS") or None,
        cache_folder=Path(cache).expanduser().absolute() if (cache := variables.get("CYTORAY_CACHE")) else None,
    )


def _local_tracking_uri(home: Path) -> str:
    return f"sqlite:///{home / 'mlflow.db'}"
