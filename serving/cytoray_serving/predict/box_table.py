"""Reads a CSV file with the boxes of cells in one or more images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NoReturn

from cytoray_analysis.errors import DatasetError, MissingFileError, RequestError
from cytoray_services.datasets.manifest_rows import read_rows
from cytoray_serving.inputs import SIDES
from cytoray_serving.predict.path_matching import PathMatcher, absolute, parts_of

_IMAGE_COLUMNS = ("image", "path")


@dataclass(frozen=True)
class BoxTable:
    """The boxes of a CSV file.

    Attributes
    ----------
    path
        Path of the file.
    column
        Name of the column with the image of a box; None if there is none.
    rows
        Line number and sides of every box as text, by the value of that column; empty text without the column.
    """

    path: Path
    column: str | None
    rows: dict[str, list[tuple[int, tuple[str, ...]]]]

    def boxes_by(self, matcher: PathMatcher, image: Path, *, alone: bool) -> list[list[float]]:
        """Return the boxes of an image, X first, in pixels.

        Parameters
        ----------
        matcher
            Matcher of all inputs, which the table must distinguish.
        image
            Path of the image.
        alone
            Whether it is the only input.

        Raises
        ------
        RequestError
            No row matches the image, a row matches several inputs, a side is not a number, or the column is missing.
        """
        if self.column is None and not alone:
            raise RequestError(
                f"{self.path} has no column {' or '.join(_IMAGE_COLUMNS)}, but there are several inputs",
                field="boxes",
                hint="add such a column with the image of each box",
            )
        written = {""} if self.column is None else self._written_of(image, matcher)
        return [self._numbers(*row) for said in written for row in self.rows.get(said, ())] or self._none(image)

    def _written_of(self, image: Path, matcher: PathMatcher) -> set[str]:
        """Return the entry of the table for an image: one path, in any spelling."""
        found: dict[tuple[str, ...], set[str]] = {}
        for said in self._said.get(parts_of(absolute(image))[-1], ()):
            if image in matcher.meant(said):
                found.setdefault(parts_of(said), set()).add(said)
        if len(found) > 1:
            several = " and ".join("/".join(parts) for parts in sorted(found))
            raise RequestError(
                f"{self.path} has boxes for {several}, which is ambiguous: each could be {image}",
                field="boxes",
                hint=f"use the same path for all boxes of an image, such as {_short(image)}",
            )
        for said in next(iter(found.values()), ()):
            names = matcher.meant(said)
            if len(names) > 1:
                raise RequestError(
                    f"{self.path} has {said}, which is ambiguous: {' and '.join(map(str, names))} have the same name",
                    field="boxes",
                    hint=f"give more of the path in the column {self.column}, such as {_short(image)}",
                )
        return next(iter(found.values()), set())

    @cached_property
    def _said(self) -> dict[str, list[str]]:
        """The entries of the table for images, by file name."""
        said: dict[str, list[str]] = {}
        for written in self.rows:
            said.setdefault((parts_of(written) or ("",))[-1], []).append(written)
        return said

    def _numbers(self, line: int, sides: tuple[str, ...]) -> list[float]:
        try:
            return [float(side) for side in sides]
        except ValueError as error:
            raise RequestError(
                f"{self.path}, line {line}: expected numbers for the box, got {list(sides)}",
                field="boxes",
                hint="give the sides in pixels",
            ) from error

    def _none(self, image: Path) -> NoReturn:
        names = sorted(self._said.get(parts_of(absolute(image))[-1], ()))
        other = f"; it has boxes for {', '.join(names[:3])}" if names else ""
        raise RequestError(
            f"{self.path} has no box for {image}{other}",
            field="boxes",
            hint="the column image contains file names such as a.tif, or paths such as A/a.tif if names are not unique",
        )


def read_boxes(path: Path) -> BoxTable:
    """Read a CSV file of boxes.

    Parameters
    ----------
    path
        Columns ``xmin, ymin, xmax, ymax`` (``zmin, zmax`` for volumes) in pixels, with the separators of a manifest;
        for several images also a column ``image`` or ``path``: the file name, or enough of the path to be unique.

    Raises
    ------
    MissingFileError
        The file does not exist.
    RequestError
        The file is not a CSV, or a column is missing.
    """
    if path.is_dir():
        raise RequestError(
            f"expected a CSV file of boxes, got the folder {path}", field="boxes", hint="name the file in it"
        )
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist", field="boxes", hint="check the path")
    try:
        names, rows = read_rows(path)
    except DatasetError as error:
        raise RequestError(error.message, field="boxes", hint=error.hint) from error
    sides = SIDES[3] if "zmin" in names else SIDES[2]
    missing = [side for side in sides if side not in names]
    if missing:
        raise RequestError(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(names) or 'no header'}",
            field="boxes",
            hint="name the columns xmin, ymin, xmax, ymax (and zmin, zmax)",
        )
    column = next((name for name in _IMAGE_COLUMNS if name in names), None)
    kept: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
    for row in rows:
        written = "" if column is None else row.values[column]
        kept.setdefault(written, []).append((row.line, tuple(row.values[side] for side in sides)))
    return BoxTable(path, column, kept)


def _short(image: Path) -> str:
    return "/".join(parts_of(image)[-2:])
