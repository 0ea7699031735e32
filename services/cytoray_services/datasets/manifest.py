"""A data set folder with a ``manifest.csv`` or a plain layout."""

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
from cytoray_services.datasets.remote.data_uris import folder_of_claim, path_or_uri
from cytoray_services.datasets.remote.folder import RemoteFolder, list_folder
from cytoray_services.datasets.remote.within import require_folder_within, require_within
from cytoray_services.datasets.spelling import Spelling, remote_spelling, spelled_remotely
from cytoray_services.datasets.split_names import check_split
from cytoray_services.kinds import DataKind, data_kind, data_kinds

if TYPE_CHECKING:
    from cytoray_analysis.kinds import TruthKind

MANIFEST = "manifest.csv"
IMAGE_ROLES = ("image", "path", "input", "movie")
KNOWN_ROLE = "known"
_DEEPEST = 3  # split/class/image: no layout has more levels
_AXES = ("z", "y", "x")
_LONGEST_NAME = 255  # bytes, on all common file systems


def open_dataset(
    root: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    truth: TruthKind | None = None,
    groups: Sequence[str] = (),
    drawing_test: bool = True,
    drawing_validation: bool = False,
    within: Sequence[Path | str] | None = None,
) -> Dataset:
    """Open a data set folder.

    Parameters
    ----------
    root
        A folder with a ``manifest.csv``, or a plain one: see :mod:`cytoray_services.datasets.layouts`. Its path or URI:
        see :mod:`cytoray_services.datasets.remote.data_uris`.
    columns
        The manifest's own column names by role: ``image`` (or ``path``, ``input``, ``movie``), ``mask``, ``target``,
        ``label`` or ``tracks``, ``known`` (a mask of the pixels of ``mask`` that are known; the others are neither
        learnt nor scored), ``split``, ``group`` (images that a drawn split keeps together: a recording, a slide), and
        the boxes' ``xmin ymin xmax ymax`` (``zmin zmax``). A column named as its role needs no entry.
    truth
        The required kind of truth; by default the kind of the folder.
    groups
        Columns for the role ``group``; the first one in the manifest is used.
    drawing_test
        Whether to draw a split ``test`` if none is given and there are enough images.
    drawing_validation
        Whether to draw ``val`` from groups of a given ``train``; the given ``val`` is not used, and nothing is drawn
        for ``test``. So what chooses a model is apart from what scores it.
    within
        Folders that must contain all files, including targets of manifests and links; None for any.

    Returns
    -------
    Dataset
        Without a split, about a fifth of the groups, or of the images, are ``val`` or ``test``: see
        :mod:`cytoray_services.datasets.drawn_split`.

    Raises
    ------
    MissingFileError
        The folder does not exist.
    ForbiddenError, PlatformError
        When a store does not give it; see :func:`~.remote.folder.list_folder`. Or some of it lies
        outside of `within`.
    DatasetError
        The layout is unknown, the truth has another kind, the manifest lacks a column, the name of a split looks
        misspelled, two files claim one name, or `columns` contains an unknown role.
    """
    _check_roles(columns or {})
    where = path_or_uri(root)
    if isinstance(where, str) and where.startswith("s3://"):
        dataset = _open_remote(list_folder(where), columns or {}, truth, groups)
    else:
        folder = folder_of_claim(where) if isinstance(where, str) else where
        if not folder.is_dir():
            raise MissingFileError(
                f"expected a data set folder, {root} does not exist", field="root", hint="check the path"
            )
        if within is not None:  # before anything is read, because the manifest may be a link
            require_folder_within(folder, within)
        dataset = _open_folder(folder, columns or {}, truth, groups)
    if within is not None:
        require_within(dataset, within)
    if truth is not None and dataset.truth_kind != truth:
        raise DatasetError(
            f"expected {root} to contain truth of the kind {truth!r}, got {dataset.truth_kind!r}",
            field="data.root",
            hint="use a recipe or a model for the task of the data",
        )
    if not dataset.items:
        raise DatasetError(
            f"expected images in {root}, there are none", field="items", hint=f"fill {MANIFEST} or images/ and masks/"
        )
    if drawing_validation and "train" in dataset.splits:
        return replace(draw_split(dataset.split("train"), with_test=False), derived_split=False)
    if dataset.derived_split:
        return draw_split(dataset, with_test=drawing_test)
    return draw_test(dataset) if drawing_test else dataset


def _check_roles(columns: Mapping[str, str]) -> None:
    """Raise an error for a column with an unknown role, which would have no effect."""
    roles = (
        *IMAGE_ROLES,
        *(kind.role for kind in data_kinds().values()),
        KNOWN_ROLE,
        "split",
        "group",
        *(f"{axis}{end}" for axis in _AXES for end in ("min", "max")),
    )
    for role in columns:
        if role not in roles:
            close = get_close_matches(role, roles, n=1)
            raise DatasetError(
                f"expected one of the roles {', '.join(roles)}, got {role!r}",
                field=f"columns.{role}",
                hint=f"did you mean {close[0]!r}?" if close else f"other columns need no role: omit {role!r}",
            )


def _open_folder(folder: Path, columns: Mapping[str, str], truth: TruthKind | None, groups: Sequence[str]) -> Dataset:
    manifest = folder / MANIFEST
    if manifest.is_file():
        return _read_manifest(folder, manifest, columns, truth, groups)
    other = next((path.name for path in folder.iterdir() if path.name.casefold() == MANIFEST), None)
    if other is not None:
        raise DatasetError(
            f"expected a manifest with the name {MANIFEST}, {folder} has {other}",
            field=MANIFEST,
            hint=f"rename it to {MANIFEST}, or move it away if it is not a manifest",
        )
    return read_layout(folder)


def _open_remote(
    remote: RemoteFolder, columns: Mapping[str, str], truth: TruthKind | None, groups: Sequence[str]
) -> Dataset:
    """Open a folder of empty files with the same names, because layouts do not read images."""
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

        items = tuple(item.moved(stored) for item in dataset.items)
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
    kinds = {wanted: data_kind(wanted)} if wanted else data_kinds()
    found = [(name, column) for name, kind in kinds.items() if (column := _find_column((kind.role,), columns, names))]
    if image is None or not found:
        role = "image" if image is None else next(iter(kinds.values())).role
        raise DatasetError(
            f"expected a column for the {role} in {manifest}; it has {', '.join(names) or 'no header'}",
            field=f"columns.{role}",
            hint=f"map one of them, for example columns: {{{role}: {names[0] if names else 'name'}}}",
        )
    kind, truth = found[0]
    in_row = kinds[kind].in_row
    known = _known_column(kinds[kind], kind, columns, names)
    sides = _box_columns(columns, names) if in_row else None
    spelling = Spelling(folder)

    def item(row: Row) -> Item:
        values, where = row.values, f"{manifest}, line {row.line}"
        if not values[image]:
            raise DatasetError(
                f"{where}: expected an image in the column {image!r}, got an empty one",
                field=MANIFEST,
                hint="add it, or remove the row",
            )
        if group and not split and not values[group]:
            raise DatasetError(
                f"{where}: expected a group in the column {group!r}, got an empty one",
                field=MANIFEST,
                hint="add the group of the image, so that a split can be drawn, or add a split",
            )
        return Item(
            image=spelling.path_of(_path(values[image], where)),
            truth=spelling.path_of(_path(values[truth], where)) if not in_row and values[truth] else None,
            split=check_split(values[split], where) if split else "",
            row=values,
            label=values[truth] if in_row else None,
            box=_box(values, sides, row.line, manifest) if sides else None,
            group=values[group] if group else "",
            known=spelling.path_of(_path(values[known], where)) if known and values[known] else None,
        )

    return Dataset(folder, tuple(map(item, rows)), kind, derived_split=split is None, group_column=group or "")


def _known_column(kind: DataKind, name: TruthKind, columns: Mapping[str, str], names: Sequence[str]) -> str | None:
    """Return the column of the masks of known pixels, if there is one, and the truth has pixels."""
    if kind.known:
        return _find_column((KNOWN_ROLE,), columns, names)
    if KNOWN_ROLE in columns:
        raise DatasetError(
            f"expected masks of known pixels for label images only, got {columns[KNOWN_ROLE]!r} for truth of the kind "
            f"{name!r}",
            field=f"columns.{KNOWN_ROLE}",
            hint="omit that role",
        )
    return None


def _path(text: str, where: str) -> str:
    if not text.isprintable() or max(len(part.encode()) for part in text.split("/")) > _LONGEST_NAME:
        raise DatasetError(
            f"{where}: expected the path of a file, got {text[:60]!r}",
            field=MANIFEST,
            hint="check for an unclosed quotation mark on this line or above",
        )
    return text


def _find_column(roles: Sequence[str], columns: Mapping[str, str], names: Sequence[str]) -> str | None:
    """Return the name of the column for the first existing one of `roles`."""
    for role in roles:
        if role in columns:
            if columns[role] not in names:
                raise DatasetError(
                    f"column {columns[role]!r} is mapped to {role}, but {MANIFEST} has {', '.join(names)}",
                    field=f"columns.{role}",
                    hint="use an existing column",
                )
            return columns[role]
    return next((role for role in roles if role in names), None)


def _box_columns(columns: Mapping[str, str], names: Sequence[str]) -> tuple[list[str], list[str]] | None:
    """Return the columns of starts and stops in the order of the spatial axes; None without boxes."""
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
