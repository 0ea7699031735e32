"""Data sets: images with their truth and split, read lazily."""

from __future__ import annotations

import fnmatch
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cytoray_analysis.errors import DatasetError, RequestError
from cytoray_analysis.selection import EACH, EVERYTHING, Selection
from cytoray_services.datasets.remote.folder import RemoteFolder

if TYPE_CHECKING:
    from cytoray_analysis.images import Image
    from cytoray_analysis.kinds import TruthKind

ALL = "all"  # means all splits
Box = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Item:
    """One image, one cell of an image, or one movie.

    Parameters
    ----------
    image
        The image file, or the folder of a movie's frames.
    truth
        Its label image (segmentation), target image (label-free) or folder of tracks (tracking); ``None`` if the
        truth is a class.
    split
        ``train``, ``val``, …
    row
        All columns of the manifest by name; empty for a plain folder.
    label
        Its class; ``None`` if the truth is a file.
    box
        The box of the cell: starts and stops along the spatial axes, in pixels; ``None`` for the whole image.
    group
        Its group, such as a recording, a slide or a patient: a drawn split keeps a group together. Empty for an
        independent image.
    known
        A mask of the pixels whose truth is known, 0 for unknown ones; ``None`` if all are.
    """

    image: Path
    truth: Path | None
    split: str
    row: Mapping[str, str] = field(default_factory=dict, hash=False)
    label: str | None = None
    box: Box | None = None
    group: str = ""
    known: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All its files: image, truth and mask of known pixels."""
        return tuple(path for path in (self.image, self.truth, self.known) if path is not None)

    def moved(self, move: Callable[[Path], Path]) -> Item:
        """Return the item with other paths of all its files."""
        return replace(
            self,
            image=move(self.image),
            truth=None if self.truth is None else move(self.truth),
            known=None if self.known is None else move(self.known),
        )


@dataclass(frozen=True)
class Dataset:
    """A list of images with truth and split, read lazily.

    Parameters
    ----------
    root
        The folder.
    items
        In the order of the manifest.
    truth_kind
        The kind of truth: label images, images, classes, or lineages.
    derived_split
        Whether the split was drawn because none was given: see :mod:`cytoray_services.datasets.drawn_split`.
    derived_test
        Whether the split ``test`` was drawn.
    remotes
        The folders in stores, if the files are there. Their paths are names then, and :func:`read_labelled` downloads
        them.
    group_column
        The column of groups in the manifest; empty without one.
    lent
        Images in ``val`` whose hash is in ``train``, because a drawn ``val`` would be empty.
    unused
        Images and truths of a plain folder that no item uses.
    selection
        The selected part of each image and its truth.
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
        """Its location, for display."""
        return next((remote.uri for remote in self.remotes if remote.root == self.root), str(self.root))

    def __len__(self) -> int:
        return len(self.items)

    @property
    def images(self) -> list[tuple[Item, ...]]:
        """The items of each image, in order: its cells, or itself."""
        groups: dict[tuple[Path, Path | None], list[Item]] = {}
        for item in self.items:
            groups.setdefault((item.image, item.truth), []).append(item)
        return [tuple(group) for group in groups.values()]

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, sorted."""
        return tuple(sorted({item.split for item in self.items}))

    def split(self, name: str) -> Dataset:
        """Return the items of one split, or of all splits for ``all``.

        Raises
        ------
        DatasetError
            The split does not exist.
        """
        if name == ALL:
            return self
        chosen = tuple(item for item in self.items if item.split == name)
        if not chosen:
            raise DatasetError(
                f"{self.place} has no split {name!r}; it has {', '.join(self.splits) or 'no items'}",
                field="split",
                hint="use one of those, or map the split column of the manifest",
            )
        return replace(self, items=chosen)

    def as_split(self, name: str, *, keeping: str | None = None) -> Dataset:
        """Return the same items in one split, except those of the split `keeping`."""
        items = tuple(item if item.split == keeping else replace(item, split=name) for item in self.items)
        return replace(self, items=items, derived_split=False, lent=())

    def choosing(self, selection: Selection) -> Dataset:
        """Return the data set with a selection of each image.

        Raises
        ------
        RequestError
            Each series is selected, but an image has one truth.
        """
        if selection.series == EACH:
            raise RequestError(
                "expected one series of each image, got each: an image has one truth",
                field="series",
                hint="select a series",
            )
        return replace(self, selection=selection)

    def share(self, share: float, *, seed: int = 0) -> Dataset:
        """Return the data set with a share of its training items, equal for each class, and all others.

        With the same seed, a smaller share is part of a larger one, so that a learning curve only adds labels.
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
        """Return the path of a file in the data set, or the name of a file elsewhere."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.name

    def where(self, column: str, glob: str) -> Dataset:
        """Return the items whose value in a column of the manifest matches, such as ``where("kind", "fluo*")``.

        Raises
        ------
        DatasetError
            No item has this column, or none matches.
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


@dataclass(frozen=True, eq=False)
class Labelled:
    """One image or movie with its truth.

    Attributes
    ----------
    items
        Its items in the data set: its cells, or itself.
    image
        Read lazily.
    truth
        Labels (spatial…); an image (K, spatial…) float32; the class of each item (n,) int64; or a lineage.
    objects
        Additional input of a predictor: boxes of the cells, masks of the frames; None without any.
    """

    items: tuple[Item, ...]
    image: Image
    truth: Any
    objects: Any = None


def truth_file(item: Item) -> Path:
    """Return the file or folder of an item's truth.

    Raises
    ------
    DatasetError
        It has no truth.
    """
    if item.truth is None:
        raise DatasetError(
            f"expected every image to have a truth, got none for {item.image}",
            field=str(item.image),
            hint="see: cytoray data check",
        )
    return item.truth


def join_datasets(datasets: Sequence[Dataset]) -> Dataset:
    """Join data sets of one kind; each item keeps its split, and its row has the folder as ``dataset``.

    Raises
    ------
    DatasetError
        Their truths have different kinds.
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
    # A local folder and one in a bucket have no common root.
    alike = len({root.is_absolute() for root in roots}) == 1
    return Path(os.path.commonpath(roots)) if alike else roots[0]
