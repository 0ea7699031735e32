"""The settings of this installation: where it stores its state, and which registry it uses.

Six environment variables, read in one place:

``CYTORAY_HOME``
    The folder for everything that Cytoray stores; default ``.cytoray`` in the working directory.
``MLFLOW_TRACKING_URI``
    The MLflow server that is the registry; default a SQLite file under the home folder.
``CYTORAY_ARTIFACTS``
    Where new experiments store their files if the registry is a database, such as ``s3://bucket/models``; default a
    folder under the home folder. An MLflow server has its own setting.
``CYTORAY_CACHE``
    The folder of decoded images, best on a local disk; default a folder under the home folder.
``CYTORAY_SHIPPED``
    The folder of the models that need no registry, such as ``nuclei``; default those that come with Cytoray.
``CYTORAY_ON``
    The default of ``cytoray jobs --on``, such as ``kubernetes:/lab``; several backends are separated by commas.
    Default this machine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cytoray_analysis.errors import RequestError

DEFAULT_HOME = ".cytoray"
SHIPPED = Path(__file__).with_name("shipped")


class Settings(BaseModel):
    """The settings of one process.

    Parameters
    ----------
    home
        Absolute path of the state folder. It need not exist; writers create it.
    tracking_uri
        Address of the MLflow tracking server and registry.
    artifacts_uri
        Where the files of runs are stored without a server; None for :attr:`artifacts`.
    cache_folder
        Folder of decoded images; None for a folder under `home`.
    shipped
        Folder of the models that need no registry; None for no such models.
    jobs_on
        Default backend of jobs; None for this machine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path
    tracking_uri: str
    artifacts_uri: str | None = None
    cache_folder: Path | None = None
    shipped: Path | None = None
    jobs_on: str | None = None

    @property
    def cache(self) -> Path:
        """Folder of decoded images; it can be lost without harm."""
        return self.cache_folder or self.home / "cache"

    @property
    def artifacts(self) -> Path:
        """Folder of run artifacts; used without `artifacts_uri` and without an MLflow server."""
        return self.home / "artifacts"

    @property
    def models(self) -> Path:
        """Cache of downloaded bundles, one folder per digest."""
        return self.home / "models"


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from the environment, without touching files.

    Parameters
    ----------
    environment
        Variables to read instead of ``os.environ``. An empty variable counts as unset.

    Returns
    -------
    Settings
        With ``home`` made absolute, so that workers started in another directory find the same state.

    Raises
    ------
    RequestError
        If ``CYTORAY_HOME`` is an existing file.
    """
    variables = os.environ if environment is None else environment
    home = Path(variables.get("CYTORAY_HOME") or DEFAULT_HOME).expanduser().absolute()
    if home.exists() and not home.is_dir():
        raise RequestError(
            f"expected CYTORAY_HOME to be a folder or not to exist yet, got the file {home}",
            field="CYTORAY_HOME",
            hint="set CYTORAY_HOME to another path, or move that file away",
        )
    return Settings(
        home=home,
        tracking_uri=variables.get("MLFLOW_TRACKING_URI") or _local_tracking_uri(home),
        artifacts_uri=variables.get("CYTORAY_ARTIFACTS") or None,
        cache_folder=Path(cache).expanduser().absolute() if (cache := variables.get("CYTORAY_CACHE")) else None,
        shipped=Path(shipped).expanduser().absolute() if (shipped := variables.get("CYTORAY_SHIPPED")) else SHIPPED,
        jobs_on=variables.get("CYTORAY_ON") or None,
    )


def _local_tracking_uri(home: Path) -> str:
    return f"sqlite:///{home / 'mlflow.db'}"
