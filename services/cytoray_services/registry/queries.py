"""Queries to the registry of MLflow, as plain functions over its client."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING

from cytoray_analysis.errors import ModelNotFoundError, PlatformError
from cytoray_services.registry.versions import ModelRecord, ModelVersion, Reference, facts_from_tags, metrics_from_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowModelVersion
    from mlflow.entities.model_registry import RegisteredModel


def experiment_id(client: MlflowClient, name: str, artifact_location: str | None) -> str:
    """Return the ID of an experiment, which is created if needed."""
    found = client.get_experiment_by_name(name)
    if found is None:
        made = create_experiment(client, name, artifact_location)
        if made is not None:
            return made
        found = client.get_experiment_by_name(name)  # another process has created it
    if found is None or found.lifecycle_stage != "active":
        raise PlatformError(
            f"the experiment {name!r} was deleted from MLflow",
            field="experiment",
            hint="restore it with `mlflow experiments restore`, or use another name",
        )
    return str(found.experiment_id)


def create_experiment(client: MlflowClient, name: str, artifact_location: str | None) -> str | None:
    """Make an experiment and return its identifier; None where there is one of this name."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.create_experiment(name, artifact_location=artifact_location))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return None


def aliases_of(client: MlflowClient, name: str) -> dict[str, str]:
    """Return alias to version of a model, or raise ModelNotFoundError with the existing models."""
    return {alias: str(version) for alias, version in registered_model(client, name).aliases.items()}


def registered_model(client: MlflowClient, name: str) -> RegisteredModel:
    """Return MLflow's record of a model, or raise ModelNotFoundError with the existing models."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    names = [known for known, _ in search_models(client)]
    close = get_close_matches(name, names, n=1)
    raise ModelNotFoundError(
        f"there is no model {name!r}; the registry contains {', '.join(names) if names else 'no models'}",
        field="model",
        hint=f"did you mean {close[0]!r}?" if close else "train one: cytoray train RECIPE",
    )


def find_version(client: MlflowClient, name: str, version: str | None) -> MlflowModelVersion | None:
    """Return one version of a model, or None if it does not exist."""
    from mlflow.exceptions import MlflowException

    if version is None:
        return None
    try:
        return client.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def no_such_version(client: MlflowClient, wanted: Reference, aliases: Mapping[str, str]) -> ModelNotFoundError:
    """Return the error for a missing reference of an existing model, with the existing ones."""
    numbers = [str(found.version) for found in search_versions(client, wanted.name)]
    what = f"alias {wanted.alias!r}" if wanted.alias else f"version {wanted.version}" if wanted.version else "version"
    known = ", ".join([*(f"@{alias}" for alias in sorted(aliases)), *(f"/{number}" for number in numbers)])
    return ModelNotFoundError(
        f"the model {wanted.name!r} has no {what}; there are: {known or 'none'}",
        field="model",
        hint=f"see: cytoray models show {wanted.name}" if numbers else "train one: cytoray train RECIPE",
    )


def made_again(found: ModelVersion, wanted: str) -> ModelNotFoundError:
    """Return the error for a version number that now belongs to another version."""
    return ModelNotFoundError(
        f"expected {found.reference} with the digest {wanted[:12]}…, got {found.digest[:12] or 'none'}…: the model was "
        "deleted and created again with the same name",
        field="model",
        hint=f"use the current version; see: cytoray models show {found.reference}",
    )


def newest_version(client: MlflowClient, name: str) -> str | None:
    """Return the number of the newest version; None for a model without versions."""
    versions = search_versions(client, name)
    return str(versions[0].version) if versions else None


def search_versions(client: MlflowClient, name: str) -> tuple[MlflowModelVersion, ...]:
    """Return all versions of a model, newest first."""
    found: list[MlflowModelVersion] = []
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", max_results=1000, page_token=token)
        found += page
        token = page.token
        if not token:
            return tuple(sorted(found, key=lambda version: -int(version.version)))


def search_models(client: MlflowClient) -> tuple[tuple[str, dict[str, str]], ...]:
    """Return the names of all models, sorted, with their aliases."""
    found: dict[str, dict[str, str]] = {}
    token = None
    while True:
        page = client.search_registered_models(max_results=1000, page_token=token)
        for model in page:
            found[model.name] = {alias: str(version) for alias, version in model.aliases.items()}
        token = page.token
        if not token:
            return tuple(sorted(found.items()))


def model_version(found: MlflowModelVersion, aliases: Mapping[str, str]) -> ModelVersion:
    """Convert MLflow's record of a version; `aliases` are those of the model, alias to version."""
    version = str(found.version)
    return ModelVersion(
        name=found.name,
        version=version,
        aliases=tuple(sorted(alias for alias, target in aliases.items() if target == version)),
        run_id=found.run_id or None,
        digest=found.tags.get("digest", ""),
        created=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
        metrics=metrics_from_tags(found.tags, f"{found.name}/{version}"),
        tags=facts_from_tags(found.tags),
        source=found.source or "",
    )


def model_record(model: RegisteredModel, digests: Mapping[str, str]) -> ModelRecord:
    """Convert MLflow's record of a model; `digests` are those of its versions."""
    aliases = {alias: str(version) for alias, version in model.aliases.items()}
    return ModelRecord(model.name, aliases, dict(model.tags), dict(digests))
