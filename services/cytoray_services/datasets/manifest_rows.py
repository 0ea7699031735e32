"""The rows of a ``manifest.csv``, as written by spreadsheets and by hand."""

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
    """One row: the stripped values by column, and its last line in the file."""

    line: int
    values: dict[str, str]


def read_rows(manifest: Path) -> tuple[tuple[str, ...], list[Row]]:
    """Return the names of the columns, and the rows; empty rows are omitted.

    The header determines the separator: comma, semicolon, tabulator or ``|``; a first line ``sep=;`` is supported.
    Names and values are stripped.

    Raises
    ------
    DatasetError
        It is not a CSV file in UTF-8, a column exists twice, or a row has more values than columns.
    """
    try:
        text = manifest.read_text(encoding="utf-8-sig")
        separator, skipped = _separator(text)
        reader = csv.reader(io.StringIO(text), delimiter=separator, strict=True, skipinitialspace=True)
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"expected a CSV file in UTF-8, got {manifest}: {error}",
            field=manifest.name,
            hint="save it as CSV in UTF-8",
        ) from error
    lines: list[tuple[int, list[str]]] = []
    try:
        for values in reader:
            lines.append((reader.line_num, [value.strip() for value in values]))
    except csv.Error as error:
        raise DatasetError(
            f"{manifest}, line {reader.line_num}: expected CSV: {error}",
            field=manifest.name,
            hint="close all quotation marks, and separate values by commas",
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
            f"{manifest}, line {line}: expected {len(names)} values as in the header, got {len(values)}, "
            f"the last of them {spare[-1]!r}",
            field=manifest.name,
            hint="put values with the separator into quotation marks",
        )
    padded = [*values, *[""] * (len(names) - len(values))]
    return Row(line, {name: value for name, value in zip(names, padded, strict=False) if name})


def _separator(text: str) -> tuple[str, int]:
    """Return the separator, and the number of lines before the header."""
    lines = [line for line in text.splitlines() if line.strip()] or [""]
    first = lines[0].strip().lower()
    if first.startswith("sep=") and len(first) == 5:
        return first[-1], 1
    # The comma wins a tie, because it comes first.
    return max(_SEPARATORS, key=lines[0].count), 0


def _without_empty_end(names: list[str]) -> list[str]:
    while names and not names[-1]:
        names = names[:-1]
    return names
