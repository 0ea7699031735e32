"""The frozen evaluation set of a model: the same images judge every candidate, and nobody can change them unseen."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from cytoray_analysis.errors import RequestError
from cytoray_services.datasets import Dataset, DataSource, hash_dataset
from cytoray_services.promotion.seen_data import read_seen_data
from cytoray_services.registry import ModelVersion, Registry, whoami

GROUP = "group"  # the column that groups images where a manifest has it and no other is named
_TAG = "evaluation_set."


@dataclass(frozen=True)
class FrozenSet:
    """What judges the candidates of one model.

    Attributes
    ----------
    source, split
        Which images.
    digest
        Their content hash when they were frozen.
    by
        The column whose values name subgroups; None for none.
    group
        The column whose values belong together, such as a patient or a well; None where every image stands alone.
    who, when, reason
        Who froze it.
    """

    source: DataSource
    split: str
    digest: str
    by: str | None
    group: str | None
    who: str = ""
    when: str = ""
    reason: str = ""

    def open(self) -> Dataset:
        """Open it; whether its content is still that of `digest` is another question."""
        return self.source.open().split(self.split)

    @property
    def shown(self) -> str:
        """Folders and split, for people."""
        folders = self.source.validation or self.source.roots
        return f"{', '.join(str(root) for root in folders)} ({self.split})"

    def to_record(self) -> dict[str, object]:
        """Return what JSON can say."""
        plain = {name: getattr(self, name) for name in ("split", "digest", "by", "group", "who", "when", "reason")}
        return {"source": self.source.to_record(), **plain}

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> FrozenSet:
        """Read what :meth:`to_record` returned."""
        values = dict(record)
        return cls(source=DataSource.from_record(values.pop("source")), **values)  # type: ignore[arg-type]


def freeze(source: DataSource, split: str, *, by: str | None = None, group: str | None = None) -> FrozenSet:
    """Look at a data set and fix its content.

    Raises
    ------
    DatasetError, MissingFileError
        There is no such data set or split.
    RequestError
        It has no such column.
    """
    dataset = source.open().split(split)
    columns = set.intersection(*(set(item.row) for item in dataset.items))
    for field, column in (("by", by), ("group", group)):
        if column is not None and column not in columns:
            raise RequestError(
                f"expected a column of the manifest of {dataset.root}, got {column!r}",
                field=field,
                hint=f"the columns are: {', '.join(sorted(columns)) or 'none, for there is no manifest'}",
            )
    if group is None and GROUP in columns:
        group = GROUP
    return FrozenSet(source, split, hash_dataset(dataset), by, group)


def recorded_set(registry: Registry, name: str) -> FrozenSet | None:
    """Return the frozen set of a model; None where none was recorded."""
    records = [value for key, value in sorted(registry.notes(name).items()) if key.startswith(_TAG)]
    return FrozenSet.from_record(json.loads(records[-1])) if records else None


def settle(
    registry: Registry, version: ModelVersion, given: FrozenSet | None, *, replacing: bool = False, reason: str = ""
) -> FrozenSet:
    """Return the set that judges a version: the recorded one, or the first that is named, which is then recorded.

    Parameters
    ----------
    given
        What the caller names. None: the recorded one, or the validation data of the version's own training.
    replacing
        Whether `given` may differ from what is recorded.

    Raises
    ------
    RequestError
        Another set is recorded, or nothing is known that could be frozen.
    """
    known = recorded_set(registry, version.name)
    if given is None and known is not None:
        return known
    if known is not None and given is not None and not replacing:
        _refuse_another(known, given, version.name)
        # The same content may lie elsewhere now, and stricter conditions may come, but none is given up.
        given = replace(given, by=given.by or known.by, group=given.group or known.group)
    chosen = given if given is not None else _validation_data(registry, version)
    chosen = replace(chosen, who=whoami(), when=datetime.now(UTC).isoformat(), reason=reason)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    registry.note(version.name, {f"{_TAG}{stamp}.{secrets.token_hex(2)}": json.dumps(chosen.to_record())})
    return chosen


def _refuse_another(known: FrozenSet, given: FrozenSet, name: str) -> None:
    hint = "leave --on out to use the recorded one; to judge by another from now on: --replace-set --reason WHY"
    if given.digest != known.digest:
        raise RequestError(
            f"{name} is judged by {known.shown} with the hash {known.digest[:12]}…, got {given.shown} "
            f"with {given.digest[:12]}…",
            field="on",
            hint=hint,
        )
    for field in ("by", "group"):
        recorded, wanted = getattr(known, field), getattr(given, field)
        if recorded is not None and wanted not in (None, recorded):
            raise RequestError(f"{name} is judged by the column {recorded!r}, got {wanted!r}", field=field, hint=hint)


def _validation_data(registry: Registry, version: ModelVersion) -> FrozenSet:
    seen = read_seen_data(registry.run(version.run_id)) if version.run_id else None
    if seen is None or "val" not in seen.images:
        raise RequestError(
            f"expected an evaluation set for {version.name}: none is recorded, and nothing is recorded about the data "
            f"that {version.reference} was trained on",
            field="on",
            hint="name one: cytoray models promote MODEL --on DATASET",
        )
    return freeze(seen.source, "val")
