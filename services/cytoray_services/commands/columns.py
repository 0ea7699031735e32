"""The option that maps the columns of a manifest, for every command that opens a data set."""

from __future__ import annotations

from typing import Annotated

import typer

from cytoray_analysis.errors import RequestError

ColumnOption = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="ROLE=NAME", help="Map a manifest column, such as mask=labels; repeatable."),
]


def parse_columns(pairs: list[str] | None) -> dict[str, str]:
    """Return the mapping of ``--column`` options, role to name.

    Raises
    ------
    RequestError
        An option is not of the form ROLE=NAME, or a role is mapped twice.
    """
    columns: dict[str, str] = {}
    for pair in pairs or ():
        role, equals, name = pair.partition("=")
        if not equals or not role or not name:
            raise RequestError(f"expected --column ROLE=NAME, such as mask=labels, got {pair!r}", field="column")
        if role in columns:
            raise RequestError(
                f"expected one column for {role}, got {columns[role]!r} and {name!r}",
                field="column",
                hint="map each role once",
            )
        columns[role] = name
    return columns
