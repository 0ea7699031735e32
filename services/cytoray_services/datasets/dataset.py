"""Data sets: images with their truth and split; nothing is read until it is asked for."""

from __future__ import annotations

import fnmatch
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cytoray_analysis.errors import DatasetError, RequestError
from cytoray_analysis.selection import EACH, EVERYTHING, Selection
from cytoray_services.datasets.remote import RemoteFolder

if TYPE_CHECKING:
    from cytoray_analysis.tasks import TruthKind

ALL = "all"  # names every split at once
Box = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Item:
    """One image, one cell of an image, or one movie.

    Parameters
    ----------
    image
        The image file, or the folder of a movie's frames.
    truth
        Its label image (segmentation), target image (label-free) or folder of tracks (tracking); ``None`` where the
        truth is a class.
    split
        ``train``, ``val``, …
    row
        All columns of the manifest by name; empty for a plain folder.
    label
        Its class; ``None`` where the truth is a file.
    box
        Where the cell is: starts and stops along the spatial axes, in pixels; ``None`` for the whole image.
    group
        What it belongs to, such as a recording, a slide or a patient: items of one group stay in one split where splits
        are drawn. Empty where the manifest says nothing: the image stands alone.
    """

    image: Path
    truth: Path | None
    split: str
    row: Mapping[str, str] = field(default_factory=dict, hash=False)
    label: str | None = None
    box: Box | None = None
    group: str = ""


@dataclass(frozen=True)
class Dataset:
    """A list of images with truth and split; nothing is read until it is asked for.

    Parameters
    ----------
    root
        The folder.
    items
        In the order of the manifest.
    truth_kind
        What the truth is: label images, images, classes, or lineages.
    derived_split
        Whether the split was drawn, because none was given: see :mod:`cytoray_services.datasets.drawn_split`.
    derived_test
        Whether the split ``test`` was drawn.
    remotes
        The folders in stores that files lie in. Their paths are names then; :func:`read_labelled` fetches what they
        name.
    group_column
        The manifest's column that says which images belong together; empty without one.
    lent
        Images that are in ``val`` although their hash says ``train``, because a drawn ``val`` would be empty.
    unused
        Images and truths of a plain folder that no item uses.
    selection
        What of each image is asked about; planes and frames of its truth follow.
    """

    root: Path
    items: tuple[Item, ...]
    truth_kind: TruthKind = "labels"
    derived_split: bool = False
    derived_test: bool = False
    remotes: tuple[RemoteFolder, ...] = ()
    group_column: str = ""
    lent: tuple[Path, ...] = ()
    unused: tuple[Path, ...] = ()
    selection: Selection = EVERYTHING

    @property
    def place(self) -> str:
        """Where it lies, for people."""
        return next((remote.uri for remote in self.remotes if remote.root == self.root), str(self.root))

    def __len__(self) -> int:
        return len(self.items)

    @property
    def images(self) -> list[tuple[Item, ...]]:
        """The items of each image, in the order of the first: its cells, or itself alone."""
        groups: dict[tuple[Path, Path | None], list[Item]] = {}
        for item in self.items:
            groups.setdefault((item.image, item.truth), []).append(item)
        return [tuple(group) for group in groups.values()]

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, sorted."""
        return tuple(sorted({item.split for item in self.items}))

    def split(self, name: str) -> Dataset:
        """Return the items of one split, or of all when it is called ``all``.

        Raises
        ------
        DatasetError
            When there is no such split.
        """
        if name == ALL:
            return self
        chosen = tuple(item for item in self.items if item.split == name)
        if not chosen:
            raise DatasetError(
                f"{self.place} has no split {name!r}; it has {', '.join(self.splits) or 'no items'}",
                field="split",
                hint="name one of those, or map the manifest's split column",
            )
        return replace(self, items=chosen)

    def as_split(self, name: str, *, keeping: str | None = None) -> Dataset:
        """Return the same items, all in one split, but for those of the split `keeping`."""
        items = tuple(item if item.split == keeping else replace(item, split=name) for item in self.items)
        return replace(self, items=items, derived_split=False, lent=())

    def choosing(self, selection: Selection) -> Dataset:
        """Return the data set of which only a part of each image is asked about.

        Raises
        ------
        RequestError
            Every series is to be answered: an image has one truth.
        """
        if selection.series == EACH:
            raise RequestError(
                "expected one series of each image, got each: there is one truth for it",
                field="series",
                hint="name a series",
            )
        return replace(self, selection=selection)

    def share(self, share: float, *, seed: int = 0) -> Dataset:
        """Return the data set with a share of its training items, of each class alike, and all others.

        A smaller share of one seed is part of a larger one, so that a learning curve adds labels to those it had.
        """
        if share >= 1:
            return self
        by_class: dict[str | None, list[tuple[str, Item]]] = {}
        for item in self.items:
            if item.split == "train":
                name = f"{seed} {self.name_of(item.image)} {item.box}"
                by_class.setdefault(item.label, []).append((hashlib.sha256(name.encode()).hexdigest(), item))
        chosen: set[Item] = set()
        for members in by_class.values():
            ordered = sorted(members, key=lambda member: member[0])
            chosen.update(item for _, item in ordered[: max(1, round(share * len(ordered)))])
        return replace(self, items=tuple(item for item in self.items if item.split != "train" or item in chosen))

    def name_of(self, path: Path) -> str:
        """Return the path of a file inside the data set; of one that lies elsewhere its name."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.name

    def where(self, column: str, glob: str) -> Dataset:
        """Return the items whose value in a column of the manifest matches, such as ``where("kind", "fluo*")``.

        Raises
        ------
        DatasetError
            When no item has that column, or none matches.
        """
        values = {item.row[column] for item in self.items if column in item.row}
        chosen = tuple(item for item in self.items if fnmatch.fnmatchcase(item.row.get(column, ""), glob))
        if not values:
            known = sorted({name for item in self.items for name in item.row})
            raise DatasetError(
                f"{self.place} has no column {column!r}; it has {', '.join(known) or 'no manifest'}", field=column
            )
        if not chosen:
            raise DatasetError(
                f"no item of {self.place} has {column} = {glob!r}; values are {', '.join(sorted(values)[:10])}",
                field=column,
            )
        return replace(self, items=chosen)


def join_datasets(datasets: Sequence[Dataset]) -> Dataset:
    """Put data sets of one kind together, each item keeping its split; its row tells the folder as ``dataset``.

    Raises
    ------
    DatasetError
        Their truths are of different kinds.
    """
    first = datasets[0]
    if len(datasets) == 1:
        return first
    for other in datasets:
        if other.truth_kind != first.truth_kind:
            raise DatasetError(
                f"expected truth of one kind, got {first.truth_kind} in {first.place} "
                f"and {other.truth_kind} in {other.place}",
                field="data.root",
            )
    items = tuple(
        replace(item, row={**item.row, "dataset": dataset.root.name}) for dataset in datasets for item in dataset.items
    )
    return replace(
        first,
        root=_common_root(datasets),
        items=items,
        derived_split=any(dataset.derived_split for dataset in datasets),
        derived_test=any(dataset.derived_test for dataset in datasets),
        remotes=tuple(remote for dataset in datasets for remote in dataset.remotes),
        group_column=next((dataset.group_column for dataset in datasets if dataset.group_column), ""),
        lent=tuple(path for dataset in datasets for path in dataset.lent),
        unused=tuple(path for dataset in datasets for path in dataset.unused),
    )


def _common_root(datasets: Sequence[Dataset]) -> Path:
    roots = [dataset.root for dataset in datasets]
    # A folder of this machine and one in a bucket have nothing in common.
    alike = len({root.is_absolute() for root in roots}) == 1
    return Path(os.path.commonpath(roots)) if alike else roots[0]
