"""A data set folder, listed by a ``manifest.csv`` or laid out plainly."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from cytoray_analysis.errors import DatasetError, MissingFileError
from cytoray_services.datasets.dataset import Box, Dataset, Item
from cytoray_services.datasets.drawn_split import draw_split, draw_test
from cytoray_services.datasets.layouts import read_layout
from cytoray_services.datasets.manifest_rows import Row, read_rows
from cytoray_services.datasets.places import folder_of_claim, read_place
from cytoray_services.datasets.remote import RemoteFolder, list_folder
from cytoray_services.datasets.spelling import Spelling, remote_spelling, spelled_remotely
from cytoray_services.datasets.split_names import check_split

if TYPE_CHECKING:
    from cytoray_analysis.tasks import TruthKind

MANIFEST = "manifest.csv"
IMAGE_ROLES = ("image", "path", "input", "movie")
# The column that holds the truth of each kind.
TRUTH_ROLES: dict[TruthKind, str] = {"labels": "mask", "image": "target", "class": "label", "lineage": "tracks"}
_DEEPEST = 3  # split/class/image: no layout has more levels
_AXES = ("z", "y", "x")
_LONGEST_NAME = 255  # bytes, on every usual file system


def open_dataset(
    root: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    truth: TruthKind | None = None,
    groups: Sequence[str] = (),
    drawing_test: bool = True,
) -> Dataset:
    """Open a data set folder.

    Parameters
    ----------
    root
        A folder with a ``manifest.csv``, or a plain one: see :mod:`cytoray_services.datasets.layouts`. Its path or URI:
        see :mod:`cytoray_services.datasets.places`.
    columns
        The manifest's own column names by role: ``image`` (or ``path``, ``input``, ``movie``), ``mask``, ``target``,
        ``label`` or ``tracks``, ``split``, ``group`` (what stays together when a split is drawn: a recording, a
        slide), and the boxes' ``xmin ymin xmax ymax`` (``zmin zmax``). A column named like its role needs no entry.
    truth
        What the truth must be; when left out, what the folder has.
    groups
        Columns that may say what stays together: the first that the manifest has plays the role ``group``.
    drawing_test
        Whether a split ``test`` is drawn where none is given and there are images enough.

    Returns
    -------
    Dataset
        Without a split about a fifth of the groups, or else of the images, are ``val`` or ``test``: see
        :mod:`cytoray_services.datasets.drawn_split`.

    Raises
    ------
    MissingFileError
        When there is no such folder.
    ForbiddenError, PlatformError
        When a store does not give it; see :func:`cytoray_services.datasets.remote.list_folder`.
    DatasetError
        When it is laid out in none of these ways, its truth is of another kind, the manifest lacks a column, the name
        of a split looks like a mistake, two files claim one name, or `columns` names no role.
    """
    _check_roles(columns or {})
    place = read_place(root)
    if isinstance(place, str) and place.startswith("s3://"):
        dataset = _open_remote(list_folder(place), columns or {}, truth, groups)
    else:
        folder = folder_of_claim(place) if isinstance(place, str) else place
        if not folder.is_dir():
            raise MissingFileError(f"there is no data set folder {root}", field="root", hint="check the path")
        dataset = _open_folder(folder, columns or {}, truth, groups)
    if truth is not None and dataset.truth_kind != truth:
        raise DatasetError(
            f"expected {root} to hold truth of the kind {truth!r}, got {dataset.truth_kind!r}",
            field="data.root",
            hint="use a recipe or a model of the task that the data are for",
        )
    if not dataset.items:
        raise DatasetError(f"{root} holds no images", field="items", hint=f"fill {MANIFEST} or images/ and masks/")
    if dataset.derived_split:
        return draw_split(dataset, with_test=drawing_test)
    return draw_test(dataset) if drawing_test else dataset


def _check_roles(columns: Mapping[str, str]) -> None:
    """Refuse a column that is mapped to a role which nothing asks for: it would be of no effect."""
    roles = (
        *IMAGE_ROLES,
        *TRUTH_ROLES.values(),
        "split",
        "group",
        *(f"{axis}{end}" for axis in _AXES for end in ("min", "max")),
    )
    for role in columns:
        if role not in roles:
            close = get_close_matches(role, roles, n=1)
            raise DatasetError(
                f"a column has one of the roles {', '.join(roles)}, got {role!r}",
                field=f"columns.{role}",
                hint=f"did you mean {close[0]!r}?" if close else f"other columns keep their names: leave {role!r} out",
            )


def _open_folder(folder: Path, columns: Mapping[str, str], truth: TruthKind | None, groups: Sequence[str]) -> Dataset:
    manifest = folder / MANIFEST
    if manifest.is_file():
        return _read_manifest(folder, manifest, columns, truth, groups)
    other = next((path.name for path in folder.iterdir() if path.name.casefold() == MANIFEST), None)
    if other is not None:
        raise DatasetError(
            f"{folder} has {other}, which is not read: a manifest is a file called {MANIFEST}",
            field=MANIFEST,
            hint=f"rename it to {MANIFEST}, or move it away where it is none",
        )
    return read_layout(folder)


def _open_remote(
    remote: RemoteFolder, columns: Mapping[str, str], truth: TruthKind | None, groups: Sequence[str]
) -> Dataset:
    """Open a folder of empty files with the same names: no layout looks into an image."""
    with tempfile.TemporaryDirectory(prefix="cytoray-names-") as scratch:
        folder = Path(scratch)
        if MANIFEST in remote.files:
            remote.fetch([MANIFEST], folder)
        else:
            for name in {"/".join(name.split("/")[:_DEEPEST]) for name in remote.files}:
                _touch(folder / name, is_folder=name not in remote.files)
        try:
            dataset = _open_folder(folder, columns, truth, groups)
        except DatasetError as error:
            message = error.message.replace(scratch, remote.uri)
            raise DatasetError(message, field=error.field, hint=error.hint) from None
        names = remote_spelling(remote)

        def stored(path: Path) -> Path:
            inside = remote.root / path.relative_to(folder) if path.is_relative_to(folder) else path
            return spelled_remotely(inside, remote, names)

        items = tuple(
            replace(item, image=stored(item.image), truth=item.truth and stored(item.truth)) for item in dataset.items
        )
        unused = tuple(map(stored, dataset.unused))
    return replace(dataset, root=remote.root, items=items, unused=unused, remotes=(remote,))


def _touch(path: Path, *, is_folder: bool) -> None:
    (path if is_folder else path.parent).mkdir(parents=True, exist_ok=True)
    if not is_folder:
        path.touch()


def _read_manifest(
    folder: Path, manifest: Path, columns: Mapping[str, str], wanted: TruthKind | None, groups: Sequence[str]
) -> Dataset:
    names, rows = read_rows(manifest)
    image = _find_column(IMAGE_ROLES, columns, names)
    split = _find_column(("split",), columns, names)
    named = None if "group" in columns else next((column for column in groups if column in names), None)
    group = named or _find_column(("group",), columns, names)
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
    spelling = Spelling(folder)

    def item(row: Row) -> Item:
        values, where = row.values, f"{manifest}, line {row.line}"
        if not values[image]:
            raise DatasetError(
                f"{where}: expected an image in the column {image!r}, got an empty one",
                field=MANIFEST,
                hint="name it, or remove the row",
            )
        if group and not split and not values[group]:
            raise DatasetError(
                f"{where}: expected a group in the column {group!r}, got an empty one",
                field=MANIFEST,
                hint="say what the image belongs to, so that the split can be drawn, or give a split",
            )
        return Item(
            image=spelling.path_of(_path(values[image], where)),
            truth=spelling.path_of(_path(values[truth], where)) if kind != "class" and values[truth] else None,
            split=check_split(values[split], where) if split else "",
            row=values,
            label=values[truth] if kind == "class" else None,
            box=_box(values, sides, row.line, manifest) if sides else None,
            group=values[group] if group else "",
        )

    return Dataset(folder, tuple(map(item, rows)), kind, derived_split=split is None, group_column=group or "")


def _path(text: str, where: str) -> str:
    if not text.isprintable() or max(len(part.encode()) for part in text.split("/")) > _LONGEST_NAME:
        raise DatasetError(
            f"{where}: expected the path of a file, got {text[:60]!r}",
            field=MANIFEST,
            hint="look for a quotation mark that is not closed on that line or above",
        )
    return text


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
