"""The rows of a ``manifest.csv`` as spreadsheets and people write them."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from cytoray_analysis.errors import DatasetError

_SEPARATORS = ",;\t|"


@dataclass(frozen=True)
class Row:
    """One row: the values by column, without blanks around them, and the line of the file on which it ends."""

    line: int
    values: dict[str, str]


def read_rows(manifest: Path) -> tuple[tuple[str, ...], list[Row]]:
    """Return the names of the columns, and the rows; rows without any value are left out.

    The header decides which of comma, semicolon, tabulator and ``|`` separates values; a first line ``sep=;`` is
    understood. Blanks around names and values do not count.

    Raises
    ------
    DatasetError
        It is no CSV file in UTF-8, a column is there twice, or a row has more values than there are columns.
    """
    try:
        text = manifest.read_text(encoding="utf-8-sig")
        separator, skipped = _separator(text)
        reader = csv.reader(io.StringIO(text), delimiter=separator, strict=True, skipinitialspace=True)
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{manifest} is not a CSV file in UTF-8: {error}",
            field=manifest.name,
            hint="save it as CSV in UTF-8, as spreadsheets offer",
        ) from error
    lines: list[tuple[int, list[str]]] = []
    try:
        for values in reader:
            lines.append((reader.line_num, [value.strip() for value in values]))
    except csv.Error as error:
        raise DatasetError(
            f"{manifest}, line {reader.line_num}: it is not a CSV file: {error}",
            field=manifest.name,
            hint="close each quotation mark, and separate values by commas",
        ) from error
    filled = [(line, values) for line, values in lines if any(values)][skipped:]
    if not filled:
        return (), []
    (line, names), *rows = filled
    names = _without_empty_end(names)
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise DatasetError(
            f"{manifest}, line {line}: expected each column once, got {twice[0]!r} {names.count(twice[0])} times",
            field=manifest.name,
            hint="rename or remove one of them",
        )
    return tuple(name for name in names if name), [_row(manifest, line, names, values) for line, values in rows]


def _row(manifest: Path, line: int, names: list[str], values: list[str]) -> Row:
    spare = [value for value in values[len(names) :] if value]
    if spare:
        raise DatasetError(
            f"{manifest}, line {line}: expected {len(names)} values as the header has, got {len(values)}, "
            f"the last of them {spare[-1]!r}",
            field=manifest.name,
            hint="put a value that holds the separator into quotation marks",
        )
    padded = [*values, *[""] * (len(names) - len(values))]
    return Row(line, {name: value for name, value in zip(names, padded, strict=False) if name})


def _separator(text: str) -> tuple[str, int]:
    """Return what separates values, and how many lines stand before the header."""
    lines = [line for line in text.splitlines() if line.strip()] or [""]
    first = lines[0].strip().lower()
    if first.startswith("sep=") and len(first) == 5:
        return first[-1], 1
    # Of equally many the comma, which stands first.
    return max(_SEPARATORS, key=lines[0].count), 0


def _without_empty_end(names: list[str]) -> list[str]:
    while names and not names[-1]:
        names = names[:-1]
    return names
