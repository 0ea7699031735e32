"""The frozen evaluation set of a model: the same images judge every candidate, and nobody can change them unseen."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from cytoray_analysis.errors import RequestError
from cytoray_analysis.selection import EVERYTHING, Selection
from cytoray_services.datasets import ALL, Dataset, DataSource, hash_dataset
from cytoray_services.promotion.policy import TOLERANCE
from cytoray_services.promotion.seen_data import read_seen_data
from cytoray_services.records import reading
from cytoray_services.registry import ModelVersion, Registry, whoami

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
    metric
        The score in which a candidate must be better; None for the task's first.
    guards
        By score: how much of it may be lost, besides what :func:`~cytoray_services.promotion.policy.guards_of` guards.
    tolerance
        How much a subgroup may lose; None for the usual.
    columns
        By column that judges (`by`, `group`): digest of its values, which the content hash does not cover.
    """

    source: DataSource
    split: str
    digest: str
    by: str | None
    group: str | None
    who: str = ""
    when: str = ""
    reason: str = ""
    metric: str | None = None
    guards: Mapping[str, float] = dataclasses.field(default_factory=dict)
    tolerance: float | None = None
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def open(self) -> Dataset:
        """Open it; whether its content is still that of `digest` is another question."""
        return self.source.open().split(self.split)

    def changed_columns(self, dataset: Dataset) -> list[str]:
        """Return the columns that judge and no longer say what they said when the set was frozen."""
        return [name for name, digest in self.columns.items() if _column_digest(dataset, name) != digest]

    @property
    def allowed(self) -> float:
        """How much a subgroup may lose."""
        return TOLERANCE if self.tolerance is None else self.tolerance

    @property
    def shown(self) -> str:
        """Folders and split, for people."""
        folders = self.source.validation or self.source.roots
        return f"{', '.join(str(root) for root in folders)} ({self.split})"

    def to_record(self) -> dict[str, object]:
        """Return what JSON can say."""
        names = ("split", "digest", "by", "group", "who", "when", "reason", "metric", "tolerance")
        plain = {name: getattr(self, name) for name in names}
        return {
            "source": self.source.to_record(),
            **plain,
            "guards": dict(self.guards),
            "columns": dict(self.columns),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> FrozenSet:
        """Read what :meth:`to_record` returned."""
        values = dict(record)
        return cls(source=DataSource.from_record(values.pop("source")), **values)  # type: ignore[arg-type]


def freeze(
    source: DataSource,
    split: str | None = None,
    *,
    by: str | None = None,
    group: str | None = None,
    metric: str | None = None,
    guards: Mapping[str, float] | None = None,
    tolerance: float | None = None,
) -> FrozenSet:
    """Look at a data set and fix its content, and by which scores it judges.

    Without a `split` it is ``test``; of a data set in which no split is given, all of it.

    Raises
    ------
    DatasetError, MissingFileError
        There is no such data set or split.
    RequestError
        It has no such column.
    """
    whole = source.open()
    if split is None:
        split = ALL if whole.derived_split else "test"
    dataset = whole.split(split)
    columns = set.intersection(*(set(item.row) for item in dataset.items))
    for field, column in (("by", by), ("group", group)):
        if column is not None and column not in columns:
            raise RequestError(
                f"expected a column of the manifest of {dataset.root}, got {column!r}",
                field=field,
                hint=f"the columns are: {', '.join(sorted(columns)) or 'none, for there is no manifest'}",
            )
    if group is None and dataset.group_column in columns:
        group = dataset.group_column
    return FrozenSet(
        source,
        split,
        hash_dataset(dataset),
        by,
        group,
        metric=metric,
        guards=dict(guards or {}),
        tolerance=tolerance,
        columns={name: _column_digest(dataset, name) for name in (by, group) if name},
    )


def _column_digest(dataset: Dataset, column: str) -> str:
    """Return a digest of the value of each image in a column; the order of the items does not count."""
    values = sorted([dataset.name_of(item.image), str(item.box), item.row.get(column, "")] for item in dataset.items)
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def recorded_set(registry: Registry, name: str) -> FrozenSet | None:
    """Return the frozen set of a model; None where none was recorded."""
    records = [(key, value) for key, value in sorted(registry.notes(name).items()) if key.startswith(_TAG)]
    if not records:
        return None
    key, value = records[-1]
    with reading(
        f"the tag {key} of the model {name}",
        "an evaluation set",
        hint="restore that tag in MLflow, or freeze a set again: --on DATASET --replace-set --reason WHY",
    ):
        return FrozenSet.from_record(json.loads(value))


def choice_of(registry: Registry, version: ModelVersion) -> Selection:
    """Return what of each image a version was trained on; everything where nothing is recorded about that."""
    seen = read_seen_data(registry.run(version.run_id)) if version.run_id else None
    return EVERYTHING if seen is None else seen.source.selection


def settle(
    registry: Registry,
    version: ModelVersion,
    given: FrozenSet | None,
    *,
    replacing: bool = False,
    force: bool = False,
    reason: str = "",
) -> FrozenSet:
    """Return the set that judges a version: the recorded one, or the first that is named, which is then recorded.

    Parameters
    ----------
    given
        What the caller names. None: the recorded one, or the split ``test`` of the version's own data.
    replacing
        Whether `given` may differ from what is recorded.
    force
        Whether the split ``val`` judges where there is no ``test``, although it chose the version.

    Raises
    ------
    RequestError
        Another set is recorded, or one of which another channel, plane, … is chosen than the version was trained on;
        or nothing is known that could be frozen.
    """
    # A set that is replaced need not even be readable.
    known = None if replacing and given is not None else recorded_set(registry, version.name)
    judging = given or known
    if judging is not None:
        _refuse_another_choice(judging.source.selection, choice_of(registry, version), version)
    if given is None and known is not None:
        return known
    if known is not None and given is not None and not replacing:
        _refuse_another(known, given, version.name)
        # The same content may lie elsewhere now, and stricter conditions may come, but none is given up.
        given = replace(
            given,
            by=given.by or known.by,
            group=given.group or known.group,
            metric=given.metric or known.metric,
            guards=_strictest(given.guards, known.guards),
            tolerance=known.tolerance if given.tolerance is None else min(given.tolerance, known.allowed),
            columns={**given.columns, **known.columns},
        )
    chosen = given if given is not None else _own_data(registry, version, force=force)
    chosen = replace(chosen, who=whoami(), when=datetime.now(UTC).isoformat(), reason=reason)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    registry.note(version.name, {f"{_TAG}{stamp}.{secrets.token_hex(2)}": json.dumps(chosen.to_record())})
    return chosen


def _refuse_another_choice(judging: Selection, trained: Selection, version: ModelVersion) -> None:
    """Refuse a set of which something else is chosen; without a choice in training there may be one here."""
    if trained.given() and judging != trained:
        raise RequestError(
            f"expected an evaluation set of what {version.reference} was trained on ({_shown(trained)}), got one of "
            f"{_shown(judging)}",
            field="on",
            hint="judge by a set that is chosen in the same way: --on DATASET --replace-set --reason WHY",
        )


def _shown(selection: Selection) -> str:
    return ", ".join(f"{name}: {value}" for name, value in selection.given().items()) or "everything"


def _refuse_another(known: FrozenSet, given: FrozenSet, name: str) -> None:
    hint = "leave --on out to use the recorded one; to judge by another from now on: --replace-set --reason WHY"
    if given.digest != known.digest:
        raise RequestError(
            f"{name} is judged by {known.shown} with the hash {known.digest[:12]}…, got {given.shown} "
            f"with {given.digest[:12]}…",
            field="on",
            hint=hint,
        )
    if given.source.selection != known.source.selection:
        chosen, wanted = _shown(known.source.selection), _shown(given.source.selection)
        raise RequestError(f"{name} is judged by {chosen} of each image, got {wanted}", field="on", hint=hint)
    for name_of_column, digest in known.columns.items():
        if given.columns.get(name_of_column, digest) != digest:
            raise RequestError(
                f"{name} is judged by {known.shown}, whose column {name_of_column!r} says otherwise in {given.shown}",
                field="on",
                hint=hint,
            )
    for field, what in (("by", "column"), ("group", "column"), ("metric", "score")):
        recorded, wanted = getattr(known, field), getattr(given, field)
        if recorded is not None and wanted not in (None, recorded):
            raise RequestError(f"{name} is judged by the {what} {recorded!r}, got {wanted!r}", field=field, hint=hint)


def _strictest(given: Mapping[str, float], known: Mapping[str, float]) -> dict[str, float]:
    both = {**known, **given}
    return {name: min(both[name], known.get(name, both[name])) for name in both}


def _own_data(registry: Registry, version: ModelVersion, *, force: bool) -> FrozenSet:
    """Freeze what of a version's own data chose nothing: the split ``test``."""
    seen = read_seen_data(registry.run(version.run_id)) if version.run_id else None
    if seen is None or not {"val", "test"} & seen.images.keys():
        raise RequestError(
            f"expected an evaluation set for {version.name}: none is recorded, and nothing is recorded about the data "
            f"that {version.reference} was trained on",
            field="on",
            hint="name one: cytoray models promote MODEL --on DATASET",
        )
    # What a search held out of the trials is no split of the data themselves.
    if "test" in seen.images and "test" in seen.source.open().splits:
        return freeze(seen.source, "test")
    if force:
        return freeze(seen.source, "val")
    raise RequestError(
        f"expected images that chose nothing to judge {version.reference} by: its data have no split test, and val "
        "chose its epoch and its decoding",
        field="on",
        hint="name other labelled images: --on DATASET, or give the data set a split test (about 60 images or groups "
        "are enough for one to be drawn); to judge by val nevertheless: --force --reason WHY",
    )
