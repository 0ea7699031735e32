"""Data sets: folders of images with their truth, listed by a manifest or laid out plainly."""

from __future__ import annotations

import csv
import fnmatch
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from cytoray_analysis.errors import DatasetError, MissingFileError

MANIFEST = "manifest.csv"
# What a data set of each task is made of: roles of columns, their usual names, and the folders of the plain layout.
IMAGE_ROLES = ("image", "path", "input")
TRUTH_ROLES = ("mask", "target")
_PLAIN_FOLDERS = (("images", "masks"), ("inputs", "targets"))
_TRAINING_SHARE = 0.8

TruthKind = Literal["labels", "image", "none"]


@dataclass(frozen=True)
class Item:
    """One image of a data set.

    Parameters
    ----------
    image
        The image file.
    truth
        Its label image (segmentation) or target image (label-free); ``None`` where the truth is a column.
    split
        ``train``, ``val``, …
    row
        All columns of the manifest by name; empty for a plain folder.
    """

    image: Path
    truth: Path | None
    split: str
    row: Mapping[str, str] = field(default_factory=dict)


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
        What the truth files are: instance labels, images, or nothing (the truth is a column).
    label_column
        The manifest's column of classes, if it has one.
    derived_split
        Whether the split was drawn by content, because nobody gave one.
    """

    root: Path
    items: tuple[Item, ...]
    truth_kind: TruthKind = "labels"
    label_column: str | None = None
    derived_split: bool = False

    def __len__(self) -> int:
        return len(self.items)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, sorted."""
        return tuple(sorted({item.split for item in self.items}))

    def split(self, name: str) -> Dataset:
        """Return the items of one split.

        Raises
        ------
        DatasetError
            When there is no such split.
        """
        chosen = tuple(item for item in self.items if item.split == name)
        if not chosen:
            raise DatasetError(
                f"{self.root} has no split {name!r}; it has {', '.join(self.splits) or 'no items'}",
                field="split",
                hint="name one of those, or map the manifest's split column",
            )
        return replace(self, items=chosen)

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
                f"{self.root} has no column {column!r}; it has {', '.join(known) or 'no manifest'}", field=column
            )
        if not chosen:
            raise DatasetError(
                f"no item of {self.root} has {column} = {glob!r}; values are {', '.join(sorted(values)[:10])}",
                field=column,
            )
        return replace(self, items=chosen)


def open_dataset(root: str | Path, *, columns: Mapping[str, str] | None = None, task: str = "segmentation") -> Dataset:
    """Open a data set folder.

    Parameters
    ----------
    root
        A folder with a ``manifest.csv``, or a plain one: ``images/`` with ``masks/`` of the same names, or ``inputs/``
        with ``targets/``.
    columns
        The manifest's own column names by role: ``image`` (or ``path``, ``input``), ``mask`` (or ``target``),
        ``split``, ``label``. A column that is named like its role needs no entry.
    task
        What the data set is for; ``segmentation`` wants a mask column unless the manifest has a ``label`` column.

    Returns
    -------
    Dataset
        Without a split column (and for plain folders) about a fifth of the images are ``val``, chosen by a hash of the
        image's content, so that the choice does not depend on names or on other images.

    Raises
    ------
    MissingFileError
        When there is no such folder.
    DatasetError
        When it is laid out in none of these ways, or the manifest lacks a column.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise MissingFileError(f"there is no data set folder {folder}", field="root", hint="check the path")
    manifest = folder / MANIFEST
    listed = manifest.is_file()
    dataset = _from_manifest(folder, manifest, columns or {}, task) if listed else _from_folders(folder)
    if not dataset.items:
        raise DatasetError(f"{folder} holds no images", field="items", hint=f"fill {MANIFEST} or images/ and masks/")
    return _with_derived_split(dataset) if dataset.derived_split else dataset


def _from_manifest(folder: Path, manifest: Path, columns: Mapping[str, str], task: str) -> Dataset:
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            names = tuple(reader.fieldnames or ())
            rows = [{key: (value or "").strip() for key, value in row.items() if key} for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(f"{manifest} is not a CSV file in UTF-8: {error}", field=MANIFEST) from error
    image = _find_column(IMAGE_ROLES, columns, names)
    truth = _find_column(TRUTH_ROLES, columns, names)
    split = _find_column(("split",), columns, names)
    label = _find_column(("label",), columns, names)
    if image is None or (truth is None and label is None and task == "segmentation"):
        role = "image" if image is None else "mask"
        raise DatasetError(
            f"{manifest} has no column for the {role}; it has {', '.join(names) or 'no header'}",
            field=f"columns.{role}",
            hint=f"map one of them, for example columns: {{{role}: {names[0] if names else 'name'}}}",
        )
    items = tuple(
        Item(
            image=folder / row[image[1]],
            truth=folder / row[truth[1]] if truth and row[truth[1]] else None,
            split=row[split[1]] if split else "",
            row=row,
        )
        for row in rows
    )
    kind: TruthKind = "none" if truth is None else "labels" if truth[0] == "mask" else "image"
    return Dataset(folder, items, kind, label[1] if label else None, derived_split=split is None)


def _find_column(roles: Sequence[str], columns: Mapping[str, str], names: Sequence[str]) -> tuple[str, str] | None:
    """Return the role and the name of the column that plays one of `roles`."""
    for role in roles:
        if role in columns:
            if columns[role] not in names:
                raise DatasetError(
                    f"column {columns[role]!r} is mapped to {role}, but {MANIFEST} has {', '.join(names)}",
                    field=f"columns.{role}",
                    hint="name a column that is there",
                )
            return role, columns[role]
    return next(((role, role) for role in roles if role in names), None)


def _from_folders(folder: Path) -> Dataset:
    for images, truths in _PLAIN_FOLDERS:
        if not (folder / images).is_dir():
            continue
        if not (folder / truths).is_dir():
            raise DatasetError(
                f"{folder} has {images}/ but neither {truths}/ nor {MANIFEST}",
                field=f"columns.{truths}",
                hint=f"put the truth of images/x.tif into {truths}/x.tif",
            )
        known = {_stem(path): path for path in _files(folder / truths)}
        items = tuple(
            Item(path, known.get(_stem(path), folder / truths / path.name), "") for path in _files(folder / images)
        )
        return Dataset(folder, items, "labels" if truths == "masks" else "image", derived_split=True)
    raise DatasetError(
        f"{folder} has neither {MANIFEST} nor images/ and masks/",
        field="root",
        hint="see the guide on data sets for the layouts, or make one with: cytoray data make segmentation DIR",
    )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _with_derived_split(dataset: Dataset) -> Dataset:
    digests = [_content_or_name(item.image) for item in dataset.items]
    splits = ["train" if int(digest[:8], 16) / 2**32 < _TRAINING_SHARE else "val" for digest in digests]
    if len(set(splits)) == 1 and len(set(digests)) > 1:  # a set this small needs one image on each side
        odd = max(digests) if splits[0] == "train" else min(digests)
        other = "val" if splits[0] == "train" else "train"
        splits = [other if digest == odd else split for digest, split in zip(digests, splits, strict=True)]
    items = tuple(replace(item, split=split) for item, split in zip(dataset.items, splits, strict=True))
    return replace(dataset, items=items)


def _content_or_name(path: Path) -> str:
    """Hash a file that may be missing, which the check reports later."""
    from cytoray_services.datasets.content import file_digest

    return file_digest(path) if path.exists() else hashlib.sha256(path.name.encode()).hexdigest()
