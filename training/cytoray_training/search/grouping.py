"""Which images belong together and must stay on one side of every split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import networkx

from cytoray_analysis.errors import DatasetError
from cytoray_services.datasets import Dataset, Item
from cytoray_services.datasets.content import content_digests, is_there
from cytoray_services.kinds import data_kind

_GROUP = "group"


def groups_of(
    items: Sequence[Item], column: str | None = None, contents: Mapping[Path, str] | None = None
) -> list[str]:
    """Name the group of each item.

    Items with the same value in the column are one group, as are items that share an image or a truth.

    Parameters
    ----------
    items
        Of a data set.
    column
        Of the manifest; None: the group that the manifest gives (see :attr:`Item.group`, and the column ``group``), if
        it gives one.
    contents
        Of image files, as :func:`contents_of` returns them: copies of one file are one group.

    Raises
    ------
    DatasetError
        The column is missing, or an item has no value in it.
    """
    values = [_given(item) for item in items] if column is None else column_of(items, column, "data.group")
    tied: networkx.Graph[tuple[str, str]] = networkx.Graph()
    for item, value in zip(items, values, strict=True):
        ties = list(_ties(item, value, (contents or {}).get(item.image)))
        tied.add_node(ties[0])
        tied.add_edges_from((ties[0], other) for other in ties[1:])
    names: dict[tuple[str, str], str] = {}
    for part in networkx.connected_components(tied):
        name = min((value for kind, value in part if kind == _GROUP), default=min(value for _, value in part))
        names |= dict.fromkeys(part, name)
    return [names["image", str(item.image)] for item in items]


def contents_of(dataset: Dataset) -> dict[Path, str]:
    """Return the digest of every existing image file."""
    return content_digests(dataset, (item.image for item in dataset.items if is_there(dataset, item.image)))


def unit_of(dataset: Dataset, column: str | None = None) -> str:
    """Return the name of what :func:`groups_of` separates."""
    given = any(_given(item) for item in dataset.items)
    plain = data_kind(dataset.truth_kind).unit
    name = column or dataset.group_column or (_GROUP if given else "")
    return f"group of {name}" if name else plain


def column_of(items: Sequence[Item], column: str, field: str) -> list[str]:
    """Return the value of each item in a column of the manifest, which every row must have."""
    lacking = [item for item in items if not item.row.get(column)]
    if lacking:
        known = sorted({name for item in items for name in item.row})
        raise DatasetError(
            f"expected a value of {lacking[0].image} in the column {column!r}, found none; the columns are "
            f"{', '.join(known) or 'none'}",
            field=field,
            hint="name a column with a value in every row",
        )
    return [item.row[column] for item in items]


def _given(item: Item) -> str:
    return item.group or item.row.get(_GROUP, "")


def _ties(item: Item, group: str, content: str | None) -> Iterator[tuple[str, str]]:
    yield "image", str(item.image)
    if content:
        yield "content", content
    if group:
        yield _GROUP, group
    if item.truth is not None:
        yield "truth", str(item.truth)
