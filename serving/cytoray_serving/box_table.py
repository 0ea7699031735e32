"""A CSV file of boxes: which cells of which images are asked about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NoReturn

from cytoray_analysis.errors import DatasetError, MissingFileError, RequestError
from cytoray_services.datasets.manifest_rows import read_rows
from cytoray_serving.inputs import SIDES
from cytoray_serving.path_matching import PathMatcher, absolute, parts_of

_IMAGE_COLUMNS = ("image", "path")


@dataclass(frozen=True)
class BoxTable:
    """The boxes of a CSV file.

    Attributes
    ----------
    path
        Where it lies.
    column
        Name of the column that says which image a box is of; None where there is none.
    sides
        Names of the sides, X first.
    rows
        By what is written of the image, empty without that column: the number of the line and the sides as they are
        written, of every box.
    """

    path: Path
    column: str | None
    sides: tuple[str, ...]
    rows: dict[str, list[tuple[int, tuple[str, ...]]]]

    def boxes_of(self, image: Path, *, among: Sequence[Path] = ()) -> list[list[float]]:
        """Return the boxes of an image, X first, in pixels.

        Parameters
        ----------
        image
            Which image.
        among
            All inputs, which the table must tell apart; only `image` by default.

        Raises
        ------
        RequestError
            No row is about the image, a row may mean several inputs, a side is no number, or the column is missing.
        """
        return self.boxes_by(PathMatcher(among or (image,)), image, alone=len(among) < 2)

    def boxes_by(self, matcher: PathMatcher, image: Path, *, alone: bool) -> list[list[float]]:
        """Return the same; `matcher` knows all inputs, of which the image may be the only one."""
        if self.column is None and not alone:
            raise RequestError(
                f"{self.path} has no column {' or '.join(_IMAGE_COLUMNS)}, and there are several inputs",
                field="boxes",
                hint="name the image of each box in such a column",
            )
        written = {""} if self.column is None else self._written_of(image, matcher)
        return [self._numbers(*row) for said in written for row in self.rows.get(said, ())] or self._none(image)

    def _written_of(self, image: Path, matcher: PathMatcher) -> set[str]:
        """Return what the table writes for an image: one path, in whatever spelling."""
        found: dict[tuple[str, ...], set[str]] = {}
        for said in self._said.get(parts_of(absolute(image))[-1], ()):
            if image in matcher.meant(said):
                found.setdefault(parts_of(said), set()).add(said)
        if len(found) > 1:
            several = " and ".join("/".join(parts) for parts in sorted(found))
            raise RequestError(
                f"{self.path} has boxes for {several}, all of which may be {image}: ambiguous",
                field="boxes",
                hint=f"write the same path for all boxes of an image, such as {_short(image)}",
            )
        for said in next(iter(found.values()), ()):
            names = matcher.meant(said)
            if len(names) > 1:
                raise RequestError(
                    f"{self.path} says {said}, which is ambiguous: {' and '.join(map(str, names))} have the same name",
                    field="boxes",
                    hint=f"write more of the path into the column {self.column}, such as {_short(image)}",
                )
        return next(iter(found.values()), set())

    @cached_property
    def _said(self) -> dict[str, list[str]]:
        """What the table says of images, by the name at its end."""
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
                hint="give its sides in pixels",
            ) from error

    def _none(self, image: Path) -> NoReturn:
        names = sorted(self._said.get(parts_of(absolute(image))[-1], ()))
        other = f"; it has boxes for {', '.join(names[:3])}, another file" if names else ""
        raise RequestError(
            f"{self.path} holds no box for {image}{other}",
            field="boxes",
            hint="the column image names files, such as a.tif, or A/a.tif where several have one name",
        )


def read_boxes(path: Path) -> BoxTable:
    """Read a CSV file of boxes.

    Parameters
    ----------
    path
        Columns ``xmin, ymin, xmax, ymax`` (``zmin, zmax`` for volumes) in pixels, separated as those of a manifest,
        and where it is about several images a column ``image`` or ``path``: the image's name, or as much of its path
        as tells it from others.

    Raises
    ------
    MissingFileError
        There is no such file.
    RequestError
        It is no CSV, or a column is missing.
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
    return BoxTable(path, column, sides, kept)


def _short(image: Path) -> str:
    return "/".join(parts_of(image)[-2:])
