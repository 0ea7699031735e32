"""A data set folder, listed by a ``manifest.csv`` or laid out plainly."""

from __future__ import annotations

import csv
import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cytoray_analysis.errors import DatasetError, MissingFileError
from cytoray_services.datasets.content import content_digests, is_there
from cytoray_services.datasets.dataset import Box, Dataset, Item
from cytoray_services.datasets.layouts import read_layout
from cytoray_services.datasets.places import folder_of_claim, read_place
from cytoray_services.datasets.remote import RemoteFolder, list_folder

if TYPE_CHECKING:
    from cytoray_analysis.tasks import TruthKind

MANIFEST = "manifest.csv"
IMAGE_ROLES = ("image", "path", "input", "movie")
# The column that holds the truth of each kind.
TRUTH_ROLES: dict[TruthKind, str] = {"labels": "mask", "image": "target", "class": "label", "lineage": "tracks"}
_TRAINING_SHARE = 0.8
_DEEPEST = 3  # split/class/image: no layout has more levels
_AXES = ("z", "y", "x")


def open_dataset(
    root: str | Path, *, columns: Mapping[str, str] | None = None, truth: TruthKind | None = None
) -> Dataset:
    """Open a data set folder.

    Parameters
    ----------
    root
        A folder with a ``manifest.csv``, or a plain one: see :mod:`cytoray_services.datasets.layouts`. Its path or URI:
        see :mod:`cytoray_services.datasets.places`.
    columns
        The manifest's own column names by role: ``image`` (or ``path``, ``input``, ``movie``), ``mask``, ``target``,
        ``label`` or ``tracks``, ``split``, and the boxes' ``xmin ymin xmax ymax`` (``zmin zmax``). A column that is
        named like its role needs no entry.
    truth
        What the truth must be; when left out, what the folder has.

    Returns
    -------
    Dataset
        Without a split about a fifth of the images are ``val``, chosen by a hash of the image's content, so that the
        choice does not depend on names or on other images.

    Raises
    ------
    MissingFileError
        When there is no such folder.
    ForbiddenError, PlatformError
        When a store does not give it; see :func:`cytoray_services.datasets.remote.list_folder`.
    DatasetError
        When it is laid out in none of these ways, its truth is of another kind, or the manifest lacks a column.
    """
    place = read_place(root)
    if isinstance(place, str) and place.startswith("s3://"):
        dataset = _open_remote(list_folder(place), columns or {}, truth)
    else:
        folder = folder_of_claim(place) if isinstance(place, str) else place
        if not folder.is_dir():
            raise MissingFileError(f"there is no data set folder {root}", field="root", hint="check the path")
        dataset = _open_folder(folder, columns or {}, truth)
    if truth is not None and dataset.truth_kind != truth:
        raise DatasetError(
            f"expected {root} to hold truth of the kind {truth!r}, got {dataset.truth_kind!r}",
            field="data.root",
            hint="use a recipe or a model of the task that the data are for",
        )
    if not dataset.items:
        raise DatasetError(f"{root} holds no images", field="items", hint=f"fill {MANIFEST} or images/ and masks/")
    return _with_derived_split(dataset) if dataset.derived_split else dataset


def _open_folder(folder: Path, columns: Mapping[str, str], truth: TruthKind | None) -> Dataset:
    manifest = folder / MANIFEST
    return _read_manifest(folder, manifest, columns, truth) if manifest.is_file() else read_layout(folder)


def _open_remote(remote: RemoteFolder, columns: Mapping[str, str], truth: TruthKind | None) -> Dataset:
    """Open a folder of empty files with the same names: no layout looks into an image."""
    with tempfile.TemporaryDirectory(prefix="cytoray-names-") as scratch:
        folder = Path(scratch)
        if MANIFEST in remote.files:
            remote.fetch([MANIFEST], folder)
        else:
            for name in {"/".join(name.split("/")[:_DEEPEST]) for name in remote.files}:
                _touch(folder / name, is_folder=name not in remote.files)
        try:
            dataset = _open_folder(folder, columns, truth)
        except DatasetError as error:
            message = error.message.replace(scratch, remote.uri)
            raise DatasetError(message, field=error.field, hint=error.hint) from None
        items = tuple(_renamed(item, folder, remote.root) for item in dataset.items)
    return replace(dataset, root=remote.root, items=items, remotes=(remote,))


def _touch(path: Path, *, is_folder: bool) -> None:
    (path if is_folder else path.parent).mkdir(parents=True, exist_ok=True)
    if not is_folder:
        path.touch()


def _renamed(item: Item, folder: Path, root: Path) -> Item:
    def name(path: Path) -> Path:
        return root / path.relative_to(folder) if path.is_relative_to(folder) else path

    return replace(item, image=name(item.image), truth=item.truth and name(item.truth))


def _read_manifest(folder: Path, manifest: Path, columns: Mapping[str, str], wanted: TruthKind | None) -> Dataset:
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            names = tuple(reader.fieldnames or ())
            rows = [{key: (value or "").strip() for key, value in row.items() if key} for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(f"{manifest} is not a CSV file in UTF-8: {error}", field=MANIFEST) from error
    image = _find_column(IMAGE_ROLES, columns, names)
    split = _find_column(("split",), columns, names)
    kinds = [wanted] if wanted else list(TRUTH_ROLES)
    found = [(kind, column) for kind in kinds if (column := _find_column((TRUTH_ROLES[kind],), columns, names))]
    if image is None or not found:
        role = "image" if image is None else TRUTH_ROLES[wanted or "labels"]
        raise DatasetError(
            f"{manifest} has no column for the {role}; it has {', '.join(names) or 'no header'}",
            field=f"columns.{role}",
            hint=f"map one of them, for example columns: {{{role}: {names[0] if names else 'name'}}}",
        )
    kind, truth = found[0]
    sides = _box_columns(columns, names) if kind == "class" else None
    items = tuple(
        Item(
            image=folder / row[image],
            truth=folder / row[truth] if kind != "class" and row[truth] else None,
            split=row[split] if split else "",
            row=row,
            label=row[truth] if kind == "class" else None,
            box=_box(row, sides, line, manifest) if sides else None,
        )
        for line, row in enumerate(rows, start=2)
    )
    return Dataset(folder, items, kind, derived_split=split is None)


def _find_column(roles: Sequence[str], columns: Mapping[str, str], names: Sequence[str]) -> str | None:
    """Return the name of the column that plays the first of `roles` that is there."""
    for role in roles:
        if role in columns:
            if columns[role] not in names:
                raise DatasetError(
                    f"column {columns[role]!r} is mapped to {role}, but {MANIFEST} has {', '.join(names)}",
                    field=f"columns.{role}",
                    hint="name a column that is there",
                )
            return columns[role]
    return next((role for role in roles if role in names), None)


def _box_columns(columns: Mapping[str, str], names: Sequence[str]) -> tuple[list[str], list[str]] | None:
    """Return the columns of starts and stops in the order of the spatial axes; None where there are no boxes."""
    starts = [_find_column((f"{axis}min",), columns, names) for axis in _AXES]
    stops = [_find_column((f"{axis}max",), columns, names) for axis in _AXES]
    pairs = [(low, high) for low, high in zip(starts, stops, strict=True) if low and high]
    return ([low for low, _ in pairs], [high for _, high in pairs]) if len(pairs) > 1 else None


def _box(row: Mapping[str, str], sides: tuple[list[str], list[str]], line: int, manifest: Path) -> Box:
    try:
        starts, stops = (tuple(float(row[name]) for name in side) for side in sides)
    except ValueError as error:
        raise DatasetError(
            f"{manifest}, line {line}: expected numbers for the box, got {error}",
            field=MANIFEST,
            hint="give its sides in pixels",
        ) from error
    return starts, stops


def _with_derived_split(dataset: Dataset) -> Dataset:
    known = _contents_or_names(dataset)
    digests = [known[item.image] for item in dataset.items]
    splits = ["train" if int(digest[:8], 16) / 2**32 < _TRAINING_SHARE else "val" for digest in digests]
    if len(set(digests)) == 1:  # one image alone can only be judged by
        splits = ["val"] * len(splits)
    elif len(set(splits)) == 1:  # a set this small needs one image on each side
        odd = max(digests) if splits[0] == "train" else min(digests)
        other = "val" if splits[0] == "train" else "train"
        splits = [other if digest == odd else split for digest, split in zip(digests, splits, strict=True)]
    items = tuple(replace(item, split=split) for item, split in zip(dataset.items, splits, strict=True))
    return replace(dataset, items=items)


def _contents_or_names(dataset: Dataset) -> dict[Path, str]:
    """Hash images, and the names of those that are missing, which the check reports later."""
    images = dict.fromkeys(item.image for item in dataset.items)
    there = [path for path in images if is_there(dataset, path)]
    names = {path: hashlib.sha256(path.name.encode()).hexdigest() for path in images}
    return names | content_digests(dataset, there)
