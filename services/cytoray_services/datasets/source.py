"""Which folders a data set was opened from, and how, so that it can be opened again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    """

    roots: tuple[Path | str, ...]
    truth: TruthKind
    validation: tuple[Path | str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)

    def open(self) -> Dataset:
        """Open all folders as one data set.

        Raises
        ------
        MissingFileError, DatasetError
            See :func:`cytoray_services.datasets.open_dataset`.
        """
        if not self.validation:
            return join_datasets([self._opened(root) for root in self.roots])
        training = [self._opened(root).as_split("train") for root in self.roots]
        return join_datasets([*training, *(self._opened(root).as_split("val") for root in self.validation)])

    def _opened(self, root: Path | str) -> Dataset:
        dataset = open_dataset(root, columns=dict(self.columns) or None, truth=self.truth)
        for column, pattern in self.where.items():
            dataset = dataset.where(column, pattern)
        return dataset

    def to_record(self) -> dict[str, Any]:
        """Return what JSON can say."""
        return {
            "roots": [str(root) for root in self.roots],
            "truth": self.truth,
            "validation": [str(root) for root in self.validation],
            "columns": dict(self.columns),
            "where": dict(self.where),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> DataSource:
        """Read what :meth:`to_record` returned."""
        roots, validation = (tuple(map(read_place, record[name])) for name in ("roots", "validation"))
        return cls(roots, record["truth"], validation, record["columns"], record["where"])
