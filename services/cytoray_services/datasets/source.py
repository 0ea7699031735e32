"""The folders and options of a data set, to open it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cytoray_analysis.errors import DatasetError
from cytoray_analysis.selection import EVERYTHING, Selection
from cytoray_services.datasets.dataset import Dataset, join_datasets
from cytoray_services.datasets.manifest import open_dataset
from cytoray_services.datasets.remote.data_uris import path_or_uri

if TYPE_CHECKING:
    from cytoray_analysis.kinds import TruthKind


@dataclass(frozen=True)
class DataSource:
    """Folders and their options, as in a recipe.

    Attributes
    ----------
    roots
        Folders, or URIs (:mod:`~.remote.data_uris`); their splits are used unless there is a folder
        for validation.
    truth
        The required kind of truth.
    validation
        Folders for validation only.
    columns, where
        Column names of the manifest by role, and the rows to keep by column.
    selection
        The selected part of each image.
    groups
        Columns of groups for drawn splits; each manifest uses its first one.
    drawing_test
        Whether to draw a split ``test`` if none is given.
    within
        Folders that must contain all files; None for any.
    drawing_validation
        Whether to draw ``val`` from groups of ``train``, and not use the given one.
    """

    roots: tuple[Path | str, ...]
    truth: TruthKind
    validation: tuple[Path | str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)
    selection: Selection = EVERYTHING
    groups: tuple[str, ...] = ()
    drawing_test: bool = True
    within: tuple[Path | str, ...] | None = None
    drawing_validation: bool = False

    def open(self) -> Dataset:
        """Open all folders as one data set.

        Raises
        ------
        MissingFileError, DatasetError
            See :func:`cytoray_services.datasets.open_dataset`.
        """
        opened = [self._opened(root) for root in self.roots]
        if self.groups and not any(one.group_column in self.groups for one in opened):
            known = sorted({name for one in opened for item in one.items for name in item.row})
            raise DatasetError(
                f"expected the column {' or '.join(self.groups)} in {opened[0].place}, got "
                f"{', '.join(known) or 'none'}",
                field="data.group",
                hint="use a column of the manifest",
            )
        if not self.validation:
            return join_datasets(opened)
        training = [one.as_split("train", keeping="test") for one in opened]
        return join_datasets([*training, *(self._opened(root).as_split("val") for root in self.validation)])

    def _opened(self, root: Path | str) -> Dataset:
        dataset = open_dataset(
            root,
            columns=dict(self.columns) or None,
            truth=self.truth,
            groups=self.groups,
            drawing_test=self.drawing_test,
            drawing_validation=self.drawing_validation,
            within=self.within,
        )
        for column, pattern in self.where.items():
            dataset = dataset.where(column, pattern)
        return dataset.choosing(self.selection)

    def to_record(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "roots": [str(root) for root in self.roots],
            "truth": self.truth,
            "validation": [str(root) for root in self.validation],
            "columns": dict(self.columns),
            "where": dict(self.where),
            **({"select": self.selection.given()} if self.selection.given() else {}),
            **({"groups": list(self.groups)} if self.groups else {}),
            **({} if self.drawing_test else {"drawing_test": False}),
            **({"drawing_validation": True} if self.drawing_validation else {}),
            **({} if self.within is None else {"within": [str(one) for one in self.within]}),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> DataSource:
        """Read the result of :meth:`to_record`."""
        roots, validation = (tuple(map(path_or_uri, record[name])) for name in ("roots", "validation"))
        selection = Selection(**record.get("select", {}))
        groups, drawing = tuple(record.get("groups", ())), record.get("drawing_test", True)
        within = tuple(map(path_or_uri, record["within"])) if "within" in record else None
        columns, where = record["columns"], record["where"]
        apart = record.get("drawing_validation", False)
        return cls(roots, record["truth"], validation, columns, where, selection, groups, drawing, within, apart)
