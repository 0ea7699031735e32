"""Registration, lookup, download and promotion of models.

PyTorch, which is needed to open a bundle, is imported only there, so that queries are fast.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from cytoray_analysis.errors import ModelNotFoundError, PlatformError, RequestError
from cytoray_services.registry.adding import add_version
from cytoray_services.registry.aliases import ANY, AliasRequest, move_alias
from cytoray_services.registry.artifacts import RunFiles, present_uri
from cytoray_services.registry.claim import claim
from cytoray_services.registry.connection import Connection
from cytoray_services.registry.fetching import fetch
from cytoray_services.registry.offline_cache import OfflineCache
from cytoray_services.registry.queries import (
    aliases_of,
    find_version,
    made_again,
    model_record,
    model_version,
    newest_version,
    no_such_version,
    registered_model,
    search_models,
    search_versions,
)
from cytoray_services.registry.run import Run
from cytoray_services.registry.shipped import VERSION as SHIPPED
from cytoray_services.registry.shipped import ShippedModels
from cytoray_services.registry.starting import start_run
from cytoray_services.registry.versions import (
    CANDIDATE,
    CHAMPION,
    AliasMove,
    ModelRecord,
    ModelVersion,
    Reference,
    RegisteredModel,
    check_name,
    check_reason,
    moves_from_tags,
    parse_reference,
    tags_of,
    version_before,
)
from cytoray_services.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowModelVersion

    from cytoray_analysis.bundle import Bundle

logger = logging.getLogger(__name__)
Said = TypeVar("Said")

# Bundles without a run get one here, because servers accept files only as part of a run.
EXPERIMENT_WITHOUT_TRAINING = "registered-bundles"


class Registry:
    """Runs, models, versions and aliases of one MLflow.

    Every method raises PlatformError within seconds if MLflow does not answer.

    Parameters
    ----------
    settings
        Settings with the MLflow and the folder of downloaded bundles.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._connection = Connection(settings)
        self._shipped = ShippedModels(settings.shipped)
        self._known = OfflineCache(settings.home / "known")
        self._digests: dict[tuple[str, int], dict[str, str]] = {}

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Return the registry of `settings`; it connects to MLflow at first use."""
        return cls(settings)

    @property
    def address(self) -> str:
        """Its address, without a password."""
        return self._connection.shown_uri

    def start_run(
        self,
        experiment: str,
        name: str,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        *,
        run_id: str | None = None,
        keep: Path | None = None,
    ) -> Run:
        """Start a run, or resume one.

        Parameters
        ----------
        experiment
            The group of the run; created if needed.
        name
            Name of the run for display.
        params, tags
            Parameters of the run, and facts about it; nested mappings get dotted names.
        run_id
            The run to resume. Its existing parameters keep their values.
        keep
            A folder for calls while MLflow is unreachable; calls from an earlier start are sent to MLflow first. None
            raises an error instead.

        Raises
        ------
        ModelNotFoundError
            There is no run `run_id`.
        PlatformError
            MLflow does not answer, and there is no `keep`.
        """
        return start_run(self._connection, experiment, name, params, tags, run_id=run_id, keep=keep)

    def register(
        self,
        bundle_folder: str | Path,
        name: str,
        *,
        run_id: str | None = None,
        tags: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        alias: str | None = CANDIDATE,
    ) -> ModelVersion:
        """Upload a bundle and create a new version of a model.

        The version is created after the upload, and the alias after the version, so a failed upload leaves neither. The
        same bundle of the same run is registered once: a repetition, as by a resumed training run, returns the existing
        version. The alias moves to it unless a newer version has it.

        Parameters
        ----------
        bundle_folder
            The bundle; it is verified first.
        name
            The model; created if needed.
        run_id
            The run of the bundle; None creates one.
        tags
            Facts to record, in addition to the `provenance` of the bundle, its task and its digest.
        metrics
            Scores on the validation data.
        alias
            The alias for the new version, or None. It never moves back to an older version.

        Raises
        ------
        BundleError
            The bundle is damaged.
        RequestError
            The name is not valid for a model.
        PlatformError
            MLflow does not answer, or its file store did not accept all files; no version was created.
        """
        from cytoray_analysis.bundle import Bundle

        check_name(name)
        bundle = Bundle.load(bundle_folder)
        facts = {
            **bundle.spec.provenance,
            **(tags or {}),
            "task": bundle.spec.task.name,
            "digest": bundle.digest,
        }
        labels = tags_of(metrics or {}, facts)
        if run_id is not None:
            version = self._register(bundle, name, run_id, labels)
        else:
            with self.start_run(EXPERIMENT_WITHOUT_TRAINING, f"{name} {bundle.digest[:12]}", tags=facts) as run:
                version = self._register(bundle, name, run.run_id, labels)
        if alias is None:
            return version
        # The newest version has the alias by definition, so only the move itself is recorded.
        with self._connection.client() as client:
            current = aliases_of(client, name).get(alias)
            if current is not None and int(current) > int(version.version):
                return version  # newer versions have been registered meanwhile
            return self._point(client, name, version.version, AliasRequest(alias))

    def _register(self, bundle: Bundle, name: str, run_id: str, tags: dict[str, str]) -> ModelVersion:
        with self._connection.client() as client:
            found, aliases = add_version(client, RunFiles(client, self._connection, run_id), bundle, name, run_id, tags)
            return self._version(found, aliases)

    def _version(self, found: MlflowModelVersion, aliases: Mapping[str, str]) -> ModelVersion:
        version = model_version(found, aliases)
        return replace(version, source=present_uri(version.source, self.settings))

    def resolve(self, reference: str) -> ModelVersion:
        """Find the version of a reference.

        ``name`` alone means the champion, otherwise the candidate, otherwise the newest version.

        Raises
        ------
        ModelNotFoundError
            There is none; the message lists the existing ones.
        RequestError
            The text is not a reference.
        """
        wanted = parse_reference(reference)
        if (shipped := self._meant(wanted)) is not None:
            return shipped
        try:
            return self._resolved(reference, wanted)
        except ModelNotFoundError as error:
            raise self._shipped.suggested(error, wanted.name) from error

    def _resolved(self, reference: str, wanted: Reference) -> ModelVersion:
        with self._connection.client(model=reference, quick=True) as client:
            aliases = aliases_of(client, wanted.name)
            number = wanted.version
            if wanted.alias is not None:
                number = aliases.get(wanted.alias)
            elif number is None:
                number = aliases.get(CHAMPION) or aliases.get(CANDIDATE) or newest_version(client, wanted.name)
            found = find_version(client, wanted.name, number)
            if found is None:
                raise no_such_version(client, wanted, aliases)
            version = self._version(found, aliases)
            if wanted.digest not in (None, version.digest):
                raise made_again(version, str(wanted.digest))
            return version

    def _meant(self, wanted: Reference) -> ModelVersion | None:
        """Return the shipped version if a reference means it; MLflow is asked only for a champion of its own."""
        if wanted.name not in self._shipped:
            return None
        try:
            own = {CHAMPION: ""} if wanted.digest else self._own_aliases(wanted.name)
        except PlatformError as error:
            if wanted.version != SHIPPED:
                raise
            logger.warning("%s; whether %s is the champion is unknown", error.message, wanted.name + "/" + SHIPPED)
            own = {CHAMPION: ""}
        return self._shipped.meant(wanted, own)

    def _own_aliases(self, name: str) -> dict[str, str]:
        """Return the aliases of a model in MLflow; none for a shipped model that MLflow does not have."""
        return self._asked(name, lambda client: aliases_of(client, name), {})

    def _asked(self, name: str, ask: Callable[[MlflowClient], Said], without: Said) -> Said:
        """Ask MLflow about a model; `without` is the answer for a shipped model that MLflow does not have."""
        try:
            with self._connection.client(model=name, quick=True) as client:
                return ask(client)
        except ModelNotFoundError:
            if name not in self._shipped:
                raise
            return without

    def resolve_or_known(self, reference: str) -> tuple[ModelVersion, bool]:
        """Find the version of a reference; while MLflow is unreachable, that of its last answer.

        Returns
        -------
        version
            As from :meth:`resolve`.
        stale
            Whether MLflow did not answer, so that this is its last answer.

        Raises
        ------
        ModelNotFoundError, RequestError
            See :meth:`resolve`.
        PlatformError
            MLflow does not answer, and no answer is cached.
        """
        if parse_reference(reference).digest is not None and (found := self.last_known(reference)) is not None:
            return found, False  # it always means the same version, so MLflow is not needed
        version, stale = self._known.ask(reference, ModelVersion, lambda: self.resolve(reference))
        if not stale:  # a replica requests the exact version that a gateway found for an alias
            for name in {version.reference, version.exact_reference} - {reference}:
                self._known.ask(name, ModelVersion, lambda: version)
        return version, stale

    def fetch(self, version: ModelVersion) -> Path:
        """Return a local folder with the bundle of a version.

        It is downloaded once per machine, even with concurrent processes, and verified by its digest. After that,
        MLflow is not needed.

        Raises
        ------
        BundleError
            The version has no Cytoray bundle, or its files differ from those that were registered.
        PlatformError
            It is not downloaded yet, and MLflow does not answer.
        """
        if version.version == SHIPPED:
            return self._shipped.bundle_folder(version)
        return fetch(self._connection, version)

    def promote(
        self,
        name: str,
        version: str,
        alias: str = CHAMPION,
        *,
        expected: str | None = ANY,
        reason: str = "",
        forced: bool = False,
        report: str = "",
    ) -> ModelVersion:
        """Move an alias to a version, and record who did it and when.

        Concurrent moves are serialised, also between machines.

        Parameters
        ----------
        expected
            The version that the alias must have, None for no version; any by default.
        reason, forced, report
            For the record: see :class:`~cytoray_services.registry.versions.AliasMove`.

        Raises
        ------
        ModelNotFoundError
            There is no such version.
        RequestError
            The alias does not have the version `expected`; the message says who moved it.
        """
        check_reason(reason)
        return self._move(name, version, AliasRequest(alias, "promote", expected, reason, forced, report))

    def rollback(self, name: str, alias: str = CHAMPION, *, reason: str = "") -> ModelVersion:
        """Move an alias back to its previous version; a repetition moves it back one more.

        Raises
        ------
        RequestError
            The alias had no previous version, or another process moved it just now.
        """
        check_reason(reason)
        current = self._shipped.aliases(name, self._own_aliases(name)).get(alias)
        before = version_before(self.history(name), alias, current)
        if before is None:
            raise RequestError(
                f"expected a previous version of {name}@{alias}, there is none",
                field="alias",
                hint=f"choose a version: cytoray models promote {name}/VERSION --alias {alias}",
            )
        return self._move(name, before, AliasRequest(alias, "rollback", current, reason))

    def _move(self, name: str, version: str, request: AliasRequest) -> ModelVersion:
        if version == SHIPPED and not self._asked(name, lambda client: bool(registered_model(client, name)), False):
            return self._shipped.version(name, {})
        with self._connection.client(model=name, quick=True) as client:
            aliases_of(client, name)  # raises an error if there is no such model
            with claim(client, name, request.alias, self._connection.artifact_location("claims")):
                return self._point(client, name, version, request)

    def _point(self, client: MlflowClient, name: str, version: str, request: AliasRequest) -> ModelVersion:
        found, aliases = move_alias(client, self._shipped, name, version, request, self.history(name))
        return self._shipped.version(name, aliases) if found is None else self._version(found, aliases)

    def history(self, name: str) -> tuple[AliasMove, ...]:
        """Return all moves of the aliases of a model, oldest first."""
        return moves_from_tags(self.notes(name))

    def record(self, name: str) -> ModelRecord:
        """Return aliases, notes and digests of a model, in one request unless there are new versions.

        Raises
        ------
        ModelNotFoundError
            There is no such model.
        """
        return self._shipped.record(self._asked(name, partial(self._record, name), ModelRecord(name, {}, {}, {})))

    def _record(self, name: str, client: MlflowClient) -> ModelRecord:
        model = registered_model(client, name)
        key = name, int(model.creation_timestamp)
        newest = {str(version.version) for version in model.latest_versions}
        if not newest <= self._digests.get(key, {}).keys():
            found = search_versions(client, name)
            self._digests[key] = {str(version.version): version.tags.get("digest", "") for version in found}
        return model_record(model, self._digests.get(key, {}))

    def last_known(self, reference: str) -> ModelVersion | None:
        """Return the last cached version of a reference on this machine; None without one."""
        return self._known.remembered(reference, ModelVersion)

    def revise(self, name: str, alias: str, change: Callable[[ModelRecord], Mapping[str, str]]) -> ModelRecord:
        """Set notes of a model that depend on its state, in a lock with the moves of the alias.

        Parameters
        ----------
        alias
            The alias of the notes.
        change
            Called with the current record; returns the notes to set, or raises to change nothing.

        Returns
        -------
        ModelRecord
            With the new notes.
        """
        with self._connection.client(model=name, quick=True) as client:
            aliases_of(client, name)
            with claim(client, name, alias, self._connection.artifact_location("claims")):
                before = self.record(name)
                notes = change(before)
                for key, value in notes.items():
                    client.set_registered_model_tag(name, key, value)
        return replace(before, notes=before.notes | dict(notes))

    def run(self, run_id: str) -> Run:
        """Return a run to write to, without resuming or ending it."""
        return Run(self._connection, run_id)

    def note(self, name: str, notes: Mapping[str, str]) -> None:
        """Set tags of a model."""
        with self._connection.client(model=name, quick=True) as client:
            aliases_of(client, name)
            for key, value in notes.items():
                client.set_registered_model_tag(name, key, value)

    def notes(self, name: str) -> dict[str, str]:
        """Return the tags of a model, including its history."""
        return self._asked(name, lambda client: dict(registered_model(client, name).tags), {})

    def versions(self, name: str) -> tuple[ModelVersion, ...]:
        """Return all versions of a model, newest first."""
        aliases = self._own_aliases(name)
        own: tuple[ModelVersion, ...] = self._asked(name, partial(self._own_versions, name, aliases), ())
        return (*own, self._shipped.version(name, aliases)) if name in self._shipped else own

    def _own_versions(self, name: str, aliases: Mapping[str, str], client: MlflowClient) -> tuple[ModelVersion, ...]:
        return tuple(self._version(found, aliases) for found in search_versions(client, name))

    def find_digest(self, digest: str) -> tuple[ModelVersion, ...]:
        """Return all versions whose digest begins with `digest`."""
        everyone = (version for model in self.list() for version in model.versions)
        return tuple(version for version in everyone if version.digest.startswith(digest))

    def list(self) -> tuple[RegisteredModel, ...]:
        """Return all models that Cytoray ships or registered, by name; a shared MLflow may contain others."""
        aliases: dict[str, dict[str, str]] = {name: {} for name in self._shipped.names}
        if self._connection.is_there:
            with self._connection.client(quick=True) as client:
                aliases |= dict(search_models(client))
        models = tuple(
            RegisteredModel(name, self._shipped.aliases(name, own), self.versions(name))
            for name, own in sorted(aliases.items())
        )
        return tuple(model for model in models if any(version.digest for version in model.versions))
