"""Which folders a data set was opened from, and how, so that it can be opened again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cytoray_analysis.errors import DatasetError
from cytoray_analysis.selection import EVERYTHING, Selection
from cytoray_services.datasets.dataset import Dataset, join_datasets
from cytoray_services.datasets.manifest import open_dataset
from cytoray_services.datasets.places import read_place

if TYPE_CHECKING:
    from cytoray_analysis.tasks import TruthKind


@dataclass(frozen=True)
class DataSource:
    """Folders and how they are read, as a recipe names them.

    Attributes
    ----------
    roots
        Folders, or URIs of :mod:`cytoray_services.datasets.places`; their own splits count unless there is a folder
        for validation.
    truth
        What the truth must be.
    validation
        Folders that are for validation only.
    columns, where
        The manifest's own column names by role, and the rows to keep by column.
    selection
        What of each image is asked about.
    groups
        Columns that may say what stays together where splits are drawn; each manifest takes the first that it has.
    drawing_test
        Whether a split ``test`` is drawn where none is given.
    """

    roots: tuple[Path | str, ...]
    truth: TruthKind
    validation: tuple[Path | str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)
    selection: Selection = EVERYTHING
    groups: tuple[str, ...] = ()
    drawing_test: bool = True

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
                hint="name a column of the manifest",
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
        )
        for column, pattern in self.where.items():
            dataset = dataset.where(column, pattern)
        return dataset.choosing(self.selection)

    def to_record(self) -> dict[str, Any]:
        """Return what JSON can say."""
        return {
            "roots": [str(root) for root in self.roots],
            "truth": self.truth,
            "validation": [str(root) for root in self.validation],
            "columns": dict(self.columns),
            "where": dict(self.where),
            **({"select": self.selection.given()} if self.selection.given() else {}),
            **({"groups": list(self.groups)} if self.groups else {}),
            **({} if self.drawing_test else {"drawing_test": False}),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> DataSource:
        """Read what :meth:`to_record` returned."""
        roots, validation = (tuple(map(read_place, record[name])) for name in ("roots", "validation"))
        selection = Selection(**record.get("select", {}))
        groups, drawing = tuple(record.get("groups", ())), record.get("drawing_test", True)
        return cls(roots, record["truth"], validation, record["columns"], record["where"], selection, groups, drawing)
