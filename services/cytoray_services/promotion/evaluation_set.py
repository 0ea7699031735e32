"""The frozen evaluation set of a model: the same images for every candidate; changes are detected."""

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
class EvaluationSet:
    """The evaluation set and the policy for the candidates of one model.

    Attributes
    ----------
    source, split
        The images.
    digest
        Their content hash at the time of freezing.
    by
        The column of subgroups; None without subgroups.
    group
        The column of images that belong together, such as a patient or a well; None for independent images.
    who, when, reason
        Who froze it, when and why.
    metric
        The score in which a candidate must be better; None for the first score of the task.
    guards
        Tolerance of the loss, by score, in addition to those of :func:`~cytoray_services.promotion.policy.guards_of`.
    tolerance
        Tolerance of the loss of a subgroup; None for the default.
    columns
        Digest of the values of the columns `by` and `group`, which the content hash does not include.
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
        """Open it, without checking that its content still has the hash `digest`."""
        return self.source.open().split(self.split)

    def changed_columns(self, dataset: Dataset) -> list[str]:
        """Return the columns whose values changed after the set was frozen."""
        return [name for name, digest in self.columns.items() if _column_digest(dataset, name) != digest]

    @property
    def allowed(self) -> float:
        """Tolerance of the loss of a subgroup."""
        return TOLERANCE if self.tolerance is None else self.tolerance

    @property
    def shown(self) -> str:
        """Folders and split, for display."""
        folders = self.source.validation or self.source.roots
        return f"{', '.join(str(root) for root in folders)} ({self.split})"

    def to_record(self) -> dict[str, object]:
        """Return a JSON object."""
        names = ("split", "digest", "by", "group", "who", "when", "reason", "metric", "tolerance")
        plain = {name: getattr(self, name) for name in names}
        return {
            "source": self.source.to_record(),
            **plain,
            "guards": dict(self.guards),
            "columns": dict(self.columns),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> EvaluationSet:
        """Read the result of :meth:`to_record`."""
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
) -> EvaluationSet:
    """Look at a data set and fix its content, and by which scores it judges.

    The default of `split` is ``test``, or all of a data set without splits.

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
                hint=f"the columns are: {', '.join(sorted(columns)) or 'none, because there is no manifest'}",
            )
    if group is None and dataset.group_column in columns:
        group = dataset.group_column
    return EvaluationSet(
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
    """Return a digest of the values of a column, independent of the order of the items."""
    values = sorted([dataset.name_of(item.image), str(item.box), item.row.get(column, "")] for item in dataset.items)
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def recorded_set(registry: Registry, name: str) -> EvaluationSet | None:
    """Return the recorded evaluation set of a model; None if there is none."""
    records = [(key, value) for key, value in sorted(registry.notes(name).items()) if key.startswith(_TAG)]
    if not records:
        return None
    key, value = records[-1]
    with reading(
        f"the tag {key} of the model {name}",
        "an evaluation set",
        hint="restore that tag in MLflow, or freeze a set again: --on DATASET --replace-set --reason WHY",
    ):
        return EvaluationSet.from_record(json.loads(value))


def choice_of(registry: Registry, version: ModelVersion) -> Selection:
    """Return the part of each image that a version was trained on; everything if nothing is recorded."""
    seen = read_seen_data(registry.run(version.run_id)) if version.run_id else None
    return EVERYTHING if seen is None else seen.source.selection


def settle(
    registry: Registry,
    version: ModelVersion,
    given: EvaluationSet | None,
    *,
    replacing: bool = False,
    force: bool = False,
    reason: str = "",
) -> EvaluationSet:
    """Return the evaluation set for a version: the recorded one, or the first one given, which is then recorded.

    Parameters
    ----------
    given
        The set of the caller; None for the recorded one, or the split ``test`` of the data of the version.
    replacing
        Whether `given` may replace the recorded set.
    force
        Whether to use the split ``val`` without a ``test``, although it was used to choose the version.

    Raises
    ------
    RequestError
        Another set is recorded, or the set selects another channel, plane, … than the training of the version, or there
        is no data to freeze.
    """
    # A set that is replaced does not need to be readable.
    known = None if replacing and given is not None else recorded_set(registry, version.name)
    judging = given or known
    if judging is not None:
        _refuse_another_choice(judging.source.selection, choice_of(registry, version), version)
    if given is None and known is not None:
        return known
    if known is not None and given is not None and not replacing:
        _refuse_another(known, given, version.name)
        # The same content may have moved, and conditions may become stricter, but none is dropped.
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
    """Raise an error if the selection differs from that of the training data; without one, all are allowed."""
    if trained.given() and judging != trained:
        raise RequestError(
            f"expected an evaluation set with the selection that {version.reference} was trained with "
            f"({_shown(trained)}), got {_shown(judging)}",
            field="on",
            hint="use a set with the same selection: --on DATASET --replace-set --reason WHY",
        )


def _shown(selection: Selection) -> str:
    return ", ".join(f"{name}: {value}" for name, value in selection.given().items()) or "everything"


def _refuse_another(known: EvaluationSet, given: EvaluationSet, name: str) -> None:
    hint = "omit --on to use the recorded set; to replace it: --replace-set --reason WHY"
    if given.digest != known.digest:
        raise RequestError(
            f"expected the evaluation set of {name}, {known.shown} with the hash {known.digest[:12]}…, "
            f"got {given.shown} with {given.digest[:12]}…",
            field="on",
            hint=hint,
        )
    if given.source.selection != known.source.selection:
        chosen, wanted = _shown(known.source.selection), _shown(given.source.selection)
        raise RequestError(
            f"expected the selection of the evaluation set of {name}, {chosen}, got {wanted}", field="on", hint=hint
        )
    for name_of_column, digest in known.columns.items():
        if given.columns.get(name_of_column, digest) != digest:
            raise RequestError(
                f"expected the evaluation set of {name}, {known.shown}, got {given.shown}, which differs in the column "
                f"{name_of_column!r}",
                field="on",
                hint=hint,
            )
    for field, what in (("by", "column"), ("group", "column"), ("metric", "score")):
        recorded, wanted = getattr(known, field), getattr(given, field)
        if recorded is not None and wanted not in (None, recorded):
            raise RequestError(
                f"expected the {what} {recorded!r} of the evaluation set of {name}, got {wanted!r}",
                field=field,
                hint=hint,
            )


def _strictest(given: Mapping[str, float], known: Mapping[str, float]) -> dict[str, float]:
    both = {**known, **given}
    return {name: min(both[name], known.get(name, both[name])) for name in both}


def _own_data(registry: Registry, version: ModelVersion, *, force: bool) -> EvaluationSet:
    """Freeze the split ``test`` of the data of a version, which was not used to choose it."""
    seen = read_seen_data(registry.run(version.run_id)) if version.run_id else None
    if seen is None or not {"val", "test"} & seen.images.keys():
        raise RequestError(
            f"expected an evaluation set for {version.name}: none is recorded, and the training data of "
            f"{version.reference} are not recorded either",
            field="on",
            hint="set one: cytoray models promote MODEL --on DATASET",
        )
    # The images that a search held out are not a split of the data set.
    if "test" in seen.images and "test" in seen.source.open().splits:
        return freeze(seen.source, "test")
    if force:
        return freeze(seen.source, "val")
    raise RequestError(
        f"expected an evaluation set that was not used to choose {version.reference}: its data have no split test, and "
        "val was used to choose epoch and decoding",
        field="on",
        hint="use other labelled images: --on DATASET, or add a split test to the data set (it is drawn automatically "
        "from about 60 images or groups); to use val nevertheless: --force --reason WHY",
    )
