"""Models that come with the package: version 0 of their name, and its champion until another version is promoted.

Each is a bundle in a folder of its name. They need no registry; their scores and tags are in the head of the model
card. MLflow numbers versions from 1, so version 0 is always the shipped one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from cytoray_analysis.errors import BundleError, ModelNotFoundError
from cytoray_services.registry.card_record import record_of
from cytoray_services.registry.queries import made_again
from cytoray_services.registry.versions import CHAMPION, ModelRecord, ModelVersion, Reference, flatten

VERSION = "0"
_RELEASED = "released"  # tag: the date on which the model was made


@dataclass(frozen=True)
class ShippedModels:
    """The shipped models of a folder; none without a folder."""

    folder: Path | None

    def __contains__(self, name: str) -> bool:
        return name in self.names

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the models, sorted."""
        return tuple(_versions(self.folder)) if self.folder else ()

    def aliases(self, name: str, own: Mapping[str, str]) -> dict[str, str]:
        """Return aliases in the registry, with ``champion`` for a shipped version unless another is the champion."""
        return ({CHAMPION: VERSION} if name in self else {}) | dict(own)

    def version(self, name: str, own: Mapping[str, str]) -> ModelVersion:
        """Return the shipped version of one of :attr:`names`; `own` are the aliases of that name in the registry."""
        champion = self.aliases(name, own).get(CHAMPION) == VERSION
        return replace(self._all[name], aliases=(CHAMPION,) if champion else ())

    def meant(self, wanted: Reference, own: Mapping[str, str]) -> ModelVersion | None:
        """Return the shipped version of one of :attr:`names` if a reference means it; `own` as in :meth:`version`.

        Raises
        ------
        ModelNotFoundError
            The reference has a digest, and this release has other weights.
        """
        version = self.version(wanted.name, own)
        by_alias = wanted.version is None and wanted.alias in (None, CHAMPION) and bool(version.aliases)
        if wanted.version != VERSION and not by_alias:
            return None
        if wanted.digest not in (None, version.digest):
            raise made_again(version, str(wanted.digest))
        return version

    def record(self, own: ModelRecord) -> ModelRecord:
        """Return the record of a model in the registry with its shipped version, if there is one."""
        if own.name not in self:
            return own
        digests = own.digests | {VERSION: self._all[own.name].digest}
        return replace(own, aliases=self.aliases(own.name, own.aliases), digests=digests)

    def bundle_folder(self, version: ModelVersion) -> Path:
        """Return the bundle of a shipped version.

        Raises
        ------
        BundleError
            Another release of Cytoray has shipped it, with other weights.
        """
        found = self._all.get(version.name)
        if self.folder is None or found is None or found.digest != version.digest:
            raise BundleError(
                f"expected the model {version.reference} with the digest {version.digest[:12]}…, this release of "
                f"Cytoray has {'none' if found is None else found.digest[:12] + '…'}",
                field="digest",
                hint=f"use the current one, {version.reference}, or the release that shipped it",
            )
        return self.folder / version.name

    def suggested(self, error: ModelNotFoundError, name: str) -> ModelNotFoundError:
        """Return the error for a model that is not in the registry, with the shipped models in its hint."""
        if not self.names or name in self:
            return error
        close = get_close_matches(name, self.names, n=1)
        also = f"did you mean {close[0]!r}?" if close else f"Cytoray comes with {', '.join(self.names)}"
        hint = also if close else "; ".join(filter(None, (error.hint, also)))
        return ModelNotFoundError(error.message, field=error.field, hint=hint)

    @property
    def _all(self) -> dict[str, ModelVersion]:
        return _versions(self.folder) if self.folder else {}


@cache
def _versions(folder: Path) -> dict[str, ModelVersion]:
    from cytoray_analysis.bundle import CARD, SPEC, Bundle

    versions = {}
    for path in sorted(folder.glob(f"*/{SPEC}")):
        bundle = Bundle.load(path.parent)
        record = record_of((path.parent / CARD).read_text(encoding="utf-8"))
        tags = flatten(bundle.spec.provenance) | dict(record.tags) | {"task": bundle.spec.task.name}
        versions[path.parent.name] = ModelVersion(
            name=path.parent.name,
            version=VERSION,
            aliases=(),
            run_id=None,
            digest=bundle.digest,
            created=datetime.fromisoformat(tags.get(_RELEASED, "2026-01-01")).replace(tzinfo=UTC),
            metrics=dict(record.metrics),
            tags=tags,
            source=path.parent.as_uri(),
        )
    return versions
