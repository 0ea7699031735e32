"""Bodies of requests and responses about data sets."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from cytoray_services.corrections.edits import MOST_EDITS, Edit
from cytoray_services.corrections.records import DataSetStatus, ItemStatus, RecordedEdit
from cytoray_services.http.errors import ErrorBody


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NewDataSet(_Frozen):
    """A data set to make."""

    name: str = Field(min_length=1, max_length=64, description="Letters, digits, '.', '_' and '-'.")
    team: str | None = Field(None, max_length=64, description="The team that shares it; by default the token's own.")


class DataSetList(_Frozen):
    """The data sets that the caller may see, newest first."""

    datasets: tuple[DataSetStatus, ...]


class ItemList(_Frozen):
    """The items of a data set, in the order in which they were added."""

    items: tuple[ItemStatus, ...]


class NextItem(_Frozen):
    """The item to look at next."""

    item: str | None = Field(description="The unfinished item whose objects are least certain; null if none is left.")


class Edits(_Frozen):
    """Edits to make, all or none, in this order."""

    edits: Annotated[tuple[Edit, ...], Field(min_length=1, max_length=MOST_EDITS)]


class Stale(ErrorBody):
    """The refusal of edits on a revision that is not the newest: both sides."""

    revision: int = Field(description="The newest revision.")
    theirs: tuple[RecordedEdit, ...] = Field(description="The edits that others made since.")
