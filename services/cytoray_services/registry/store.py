"""Registering, finding, fetching and promoting models.

PyTorch, which opening a bundle needs, is imported only there, so that looking into the registry is quick.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cytoray_analysis.errors import PlatformError, RequestError
from cytoray_services.registry.aliases import ANY, AliasRequest, overtaken
from cytoray_services.registry.artifacts import RunFiles, present_uri
from cytoray_services.registry.claim import claim
from cytoray_services.registry.connection import Connection
from cytoray_services.registry.fetching import fetch
from cytoray_services.registry.kept_run import KeptRun, deliver, has_kept
from cytoray_services.registry.known import Known
from cytoray_services.registry.queries import (
    aliases_of,
    experiment_id,
    find_version,
    model_record,
    model_version,
    newest_version,
    no_such_version,
    registered_model,
    search_models,
    search_versions,
)
from cytoray_services.registry.run import Run, whoami
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

# Bundles that come from no run of ours get one here, since servers accept files only as part of a run.
EXPERIMENT_WITHOUT_TRAINING = "registered-bundles"


class Registry:
    """Runs, models, versions and aliases of one MLflow.

    Every method that asks MLflow raises PlatformError within seconds when it does not answer.

    Parameters
    ----------
    settings
        Names the MLflow and the folder in which fetched bundles are kept.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._connection = Connection(settings)
        self._known = Known(settings.home / "known")
        self._digests: dict[tuple[str, int], dict[str, str]] = {}

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Return the registry of `settings`; MLflow is first asked when it is needed."""
        return cls(settings)

    @property
    def address(self) -> str:
        """Where it is, without a password."""
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
            The group of runs that it belongs to; made when it does not exist.
        name
            What people call the run.
        params, tags
            What it was started with, and facts about it; nested mappings get dotted names.
        run_id
            The run to resume. Its known parameters keep their values.
        keep
            A folder for what MLflow does not take while it does not answer; what an earlier start left there is
            brought to MLflow first. None: not to answer is an error.

        Raises
        ------
        ModelNotFoundError
            There is no run `run_id`.
        PlatformError
            MLflow does not answer, and there is no `keep`.
        """
        start = {"experiment": experiment, "name": name, "params": dict(params or {}), "tags": dict(tags or {})}
        if keep is None:
            return self._begun(Run(self._connection, self._running(experiment, name, run_id)), start)
        try:
            if has_kept(keep):
                run_id = deliver(self, keep)[0]
            return self._begun(KeptRun(self._connection, self._running(experiment, name, run_id), keep, start), start)
        except PlatformError as error:
            logger.warning("%s; the run's record is kept in %s until then", error.message, keep)
            return KeptRun(self._connection, run_id or "", keep, start, beginning=True)

    def _running(self, experiment: str, name: str, run_id: str | None) -> str:
        """Make a run, or have one running again."""
        with self._connection.client(create=True) as client:
            if run_id is not None:
                client.update_run(run_id, status="RUNNING")
                return run_id
            group = experiment_id(client, experiment, self._connection.artifact_location(experiment))
            created = client.create_run(group, run_name=name, tags={"mlflow.user": whoami()})
            return str(created.info.run_id)

    @staticmethod
    def _begun(run: Run, start: Mapping[str, Any]) -> Run:
        run.log_params(start["params"])
        run.set_tags(start["tags"])
        return run

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
        """Store a bundle and make it a new version of a model.

        The same bundle of the same run is registered once: doing it again, as a resumed training does,
        returns the version that is there. The alias goes to it unless a newer version has it by then.

        Parameters
        ----------
        bundle_folder
            The bundle; it is checked first.
        name
            The model; made when it does not exist.
        run_id
            The run that the bundle came from; a run of its own is made for it when None.
        tags
            Facts to record, beside those in the bundle's `provenance`, its task and its digest.
        metrics
            Scores on the validation data.
        alias
            The alias that shall point to the new version; None for none. It never goes back to an older version.

        Raises
        ------
        BundleError
            The bundle is damaged.
        RequestError
            The name cannot be a model's.
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
        # Nobody decides anything here: the newest has the alias, so nobody's word is asked for and none is recorded
        # but the move itself.
        with self._connection.client() as client:
            current = aliases_of(client, name).get(alias)
            if current is not None and int(current) > int(version.version):
                return version  # others have registered theirs since this one was
            return self._point(client, name, version.version, AliasRequest(alias))

    def _register(self, bundle: Bundle, name: str, run_id: str, tags: dict[str, str]) -> ModelVersion:
        from mlflow.exceptions import MlflowException

        with self._connection.client() as client:
            for known in client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'"):
                if known.tags.get("digest") == bundle.digest:
                    return self._version(known, aliases_of(client, name))
            folder = f"bundle-{bundle.digest[:12]}"
            files = RunFiles(client, self._connection, run_id)
            files.add_folder(bundle.folder, folder)
            try:
                client.create_registered_model(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            created = client.create_model_version(name, f"{files.uri}/{folder}", run_id, tags=tags)
            return self._version(created, {})

    def _version(self, found: MlflowModelVersion, aliases: Mapping[str, str]) -> ModelVersion:
        version = model_version(found, aliases)
        return replace(version, source=present_uri(version.source, self.settings))

    def resolve(self, reference: str) -> ModelVersion:
        """Find the version that a reference means.

        ``name`` alone is its champion; without one its candidate; without one its newest version.

        Raises
        ------
        ModelNotFoundError
            There is none; the message says what there is.
        RequestError
            The text is no reference.
        """
        wanted = parse_reference(reference)
        with self._connection.client(model=reference, quick=True) as client:
            aliases = aliases_of(client, wanted.name)
            version = wanted.version
            if wanted.alias is not None:
                version = aliases.get(wanted.alias)
            elif version is None:
                version = aliases.get(CHAMPION) or aliases.get(CANDIDATE) or newest_version(client, wanted.name)
            found = find_version(client, wanted.name, version)
            if found is None:
                raise no_such_version(client, wanted, aliases)
            return self._version(found, aliases)

    def resolve_or_known(self, reference: str) -> tuple[ModelVersion, bool]:
        """Find the version that a reference means; where MLflow is away, the one that it meant when last asked here.

        Returns
        -------
        version
            As :meth:`resolve` gives it.
        stale
            Whether MLflow did not answer, so that this is what it said the last time.

        Raises
        ------
        ModelNotFoundError, RequestError
            See :meth:`resolve`.
        PlatformError
            MLflow does not answer, and this was never asked here before.
        """
        if parse_reference(reference).version is not None and (found := self.last_known(reference)) is not None:
            return found, False  # a version never changes, so MLflow need not even be imported
        version, stale = self._known.ask(reference, ModelVersion, lambda: self.resolve(reference))
        if not stale:  # a replica asks for the very version that a gateway found under an alias
            self._known.ask(version.reference, ModelVersion, lambda: version)
        return version, stale

    def fetch(self, version: ModelVersion) -> Path:
        """Return a local folder with the bundle of a version.

        It is downloaded once, however many processes of this machine ask at the same time, checked against the
        digest, and from then on needs no MLflow.

        Raises
        ------
        BundleError
            The version has no bundle of ours, or its files are not those that were registered.
        PlatformError
            It is not here yet, and MLflow does not answer.
        """
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
        """Let an alias point to a version, and record who did it and when.

        Of several that do so at once each has its turn, whichever machines they are on.

        Parameters
        ----------
        expected
            The version that the alias must still have, None for none; any by default.
        reason, forced, report
            For the record: see :class:`~cytoray_services.registry.versions.AliasMove`.

        Raises
        ------
        ModelNotFoundError
            There is no such version.
        RequestError
            The alias has another version than `expected`; the message says who gave it that one.
        """
        check_reason(reason)
        return self._move(name, version, AliasRequest(alias, "promote", expected, reason, forced, report))

    def rollback(self, name: str, alias: str = CHAMPION, *, reason: str = "") -> ModelVersion:
        """Let an alias point to the version that it had before; doing it twice goes back two versions.

        Raises
        ------
        RequestError
            The alias had no version before, or another process moved it just now.
        """
        check_reason(reason)
        with self._connection.client(model=name, quick=True) as client:
            current = aliases_of(client, name).get(alias)
            before = version_before(self.history(name), alias, current)
        if before is None:
            raise RequestError(
                f"{name}@{alias} had no version before, so there is nothing to go back to",
                field="alias",
                hint=f"choose a version: cytoray models promote {name}/VERSION --alias {alias}",
            )
        return self._move(name, before, AliasRequest(alias, "rollback", current, reason))

    def _move(self, name: str, version: str, request: AliasRequest) -> ModelVersion:
        with self._connection.client(model=name, quick=True) as client:
            aliases_of(client, name)  # there is such a model
            with claim(client, name, request.alias, self._connection.artifact_location("claims")):
                return self._point(client, name, version, request)

    def _point(self, client: MlflowClient, name: str, version: str, request: AliasRequest) -> ModelVersion:
        alias, aliases = request.alias, aliases_of(client, name)
        found = find_version(client, name, version)
        if found is None:
            raise no_such_version(client, Reference(name, version=version), aliases)
        current = aliases.get(alias)
        if request.expected not in (ANY, current):
            raise overtaken(name, request, current, self.history(name))
        recorded = next((move.after for move in reversed(self.history(name)) if move.alias == alias), None)
        if current != version:
            client.set_registered_model_alias(name, alias, version)
        if current != version or recorded != version:  # the latter where a process died between moving and recording
            before, when = current if current != version else recorded, datetime.now(UTC)
            move = AliasMove(
                alias, request.action, before, version, whoami(), when, request.reason, request.forced, request.report
            )
            client.set_registered_model_tag(name, *move.to_tag())
        return self._version(found, aliases | {alias: version})

    def history(self, name: str) -> tuple[AliasMove, ...]:
        """Return all moves of the aliases of a model, oldest first."""
        with self._connection.client(model=name, quick=True) as client:
            aliases_of(client, name)
            return moves_from_tags(client.get_registered_model(name).tags)

    def record(self, name: str) -> ModelRecord:
        """Return aliases, notes and digests of a model, in one request unless there are new versions.

        Raises
        ------
        ModelNotFoundError
            There is no such model.
        """
        with self._connection.client(model=name, quick=True) as client:
            model = registered_model(client, name)
            key = name, int(model.creation_timestamp)
            newest = {str(version.version) for version in model.latest_versions}
            if not newest <= self._digests.get(key, {}).keys():
                found = search_versions(client, name)
                self._digests[key] = {str(version.version): version.tags.get("digest", "") for version in found}
            return model_record(model, self._digests.get(key, {}))

    def last_known(self, reference: str) -> ModelVersion | None:
        """Return what a reference meant when it was last asked for on this machine; None for never."""
        return self._known.remembered(reference, ModelVersion)

    def record_or_known(self, name: str) -> tuple[ModelRecord, bool]:
        """Return what :meth:`record` does; where MLflow is away, what it said when last asked here, and True."""
        check_name(name)
        return self._known.ask(f"{name}.record", ModelRecord, lambda: self.record(name))

    def revise(self, name: str, alias: str, change: Callable[[ModelRecord], Mapping[str, str]]) -> ModelRecord:
        """Set notes of a model that depend on what is there, while nobody else revises them or moves the alias.

        Parameters
        ----------
        alias
            What the notes are about.
        change
            Gets the model as it is, and returns the notes to set; may raise to change nothing.

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
        """Return a run to write to, as it is: neither resumed nor ended."""
        return Run(self._connection, run_id)

    def note(self, name: str, notes: Mapping[str, str]) -> None:
        """Set tags of a model, all versions alike."""
        with self._connection.client(model=name, quick=True) as client:
            aliases_of(client, name)
            for key, value in notes.items():
                client.set_registered_model_tag(name, key, value)

    def notes(self, name: str) -> dict[str, str]:
        """Return the tags of a model, its history among them."""
        with self._connection.client(model=name, quick=True) as client:
            aliases_of(client, name)
            return dict(client.get_registered_model(name).tags)

    def versions(self, name: str) -> tuple[ModelVersion, ...]:
        """Return all versions of a model, newest first."""
        with self._connection.client(model=name, quick=True) as client:
            aliases = aliases_of(client, name)
            return tuple(self._version(found, aliases) for found in search_versions(client, name))

    def find_digest(self, digest: str) -> tuple[ModelVersion, ...]:
        """Return all versions whose digest begins with `digest`."""
        everyone = (version for model in self.list() for version in model.versions)
        return tuple(version for version in everyone if version.digest.startswith(digest))

    def list(self) -> tuple[RegisteredModel, ...]:
        """Return all models that Cytoray registered, by name; a shared MLflow may hold others too."""
        if not self._connection.is_there:
            return ()
        with self._connection.client(quick=True) as client:
            models = tuple(
                RegisteredModel(name, aliases, self.versions(name)) for name, aliases in search_models(client)
            )
        return tuple(model for model in models if any(version.digest for version in model.versions))
