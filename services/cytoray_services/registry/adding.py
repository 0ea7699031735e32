"""Uploading a bundle, and the version of a model that refers to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cytoray_analysis.errors import PlatformError
from cytoray_services.registry.artifacts import RunFiles
from cytoray_services.registry.queries import aliases_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowModelVersion

    from cytoray_analysis.bundle import Bundle


def add_version(
    client: MlflowClient, files: RunFiles, bundle: Bundle, name: str, run_id: str, tags: dict[str, str]
) -> tuple[MlflowModelVersion, dict[str, str]]:
    """Upload a bundle to its run and create a version of a model, which is created if needed.

    Parameters
    ----------
    files
        The files of the run `run_id`.
    tags
        Facts about the version, its digest among them.

    Returns
    -------
    version
        The new version; if the run has registered the same bundle before, that one.
    aliases
        The aliases of the model; empty for a new version.

    Raises
    ------
    PlatformError
        The file store did not accept all files; no version was created.
    """
    from mlflow.exceptions import MlflowException

    folder = f"bundle-{bundle.digest[:12]}"
    for known in client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'"):
        if known.tags.get("digest") == bundle.digest:
            if not files.has_folder(bundle.folder, folder):  # an earlier release did not check
                files.add_folder(bundle.folder, folder)
            return known, aliases_of(client, name)
    try:
        files.add_folder(bundle.folder, folder)
    except PlatformError as error:
        message = f"{error.message}; no version was created"
        raise PlatformError(message, field=error.field, hint=error.hint) from error
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client.create_model_version(name, f"{files.uri}/{folder}", run_id, tags=tags), {}
