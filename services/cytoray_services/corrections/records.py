"""What is stored of a data set and of its items, and how they are described."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cytoray_services.corrections.change import CorrectedObject, StoredChange
from cytoray_services.corrections.edits import Edit, Region


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)


class DataSetRecord(_Frozen):
    """Who made a data set, and when; ``dataset.json``."""

    name: str
    owner: str
    team: str | None = None
    created: datetime


class ItemRecord(_Frozen):
    """What stays of an item as it was added; ``item.json``.

    Attributes
    ----------
    name
        The name of the file that was sent.
    image, digest
        The image in the folder of the data set, and its sha256.
    axes, shape
        Of its labels.
    model
        The model that gave the labels, as in answers; None if a person gave them.
    split, group
        Given once.
    """

    id: str
    number: int
    name: str
    image: str
    digest: str
    axes: str
    shape: tuple[int, ...]
    split: Literal["train", "val"]
    group: str
    model: Mapping[str, Any] | None = None
    added: datetime
    by: str


class ItemState(_Frozen):
    """What was written last of an item; ``state.json``, made again from the log when it is older.

    Attributes
    ----------
    revision, log_bytes
        The number of edits, and the length of the log.
    masks, known
        The sha256 of these files.
    objects
        Number of objects.
    certainty, least_certain
        See :mod:`cytoray_services.corrections.certainty`.
    regions
        The finished regions, by number.
    """

    revision: int
    log_bytes: int
    masks: str
    known: str
    objects: int
    certainty: float | None
    least_certain: float | None
    regions: Mapping[int, Region]


class LoggedEdit(_Frozen):
    """One edit in the log."""

    edit: Edit
    who: str
    when: datetime
    base: int
    change: StoredChange


class RecordedEdit(_Frozen):
    """An edit that was made.

    Attributes
    ----------
    number
        Its number, from 1; the revision after it.
    base
        The revision that its author saw.
    objects
        The objects that it changed, some of them perhaps made or removed by it.
    in_force
        False for an edit that was undone; None for an undo or a redo.
    """

    number: int
    edit: Edit
    who: str
    when: datetime
    base: int
    objects: tuple[int, ...]
    in_force: bool | None = None


class GivenObject(_Frozen):
    """An object of an answer."""

    label: int = Field(ge=1)
    confidence: float | None = Field(None, ge=0, le=1)
    class_name: str | None = Field(None, alias="class", max_length=64)


class Level(_Frozen):
    """The size of an image at one level of its tiles."""

    width: int
    height: int


class ItemStatus(_Frozen):
    """An item of a data set."""

    id: str
    name: str
    split: str
    group: str
    revision: int = Field(description="Number of edits; the value of ETag and If-Match.")
    axes: Mapping[str, int] = Field(description="Length along T, Z, Y and X.")
    model: Mapping[str, Any] | None = Field(None, description="The model of the first labels; null: a person's.")
    finished: Mapping[int, Region] = Field(description="The finished regions, by number.")
    objects: int
    certainty: float | None = Field(description="Mean confidence of the objects of the model without edits.")
    least_certain: float | None = Field(description="Lowest confidence of these objects.")
    levels: tuple[Level, ...]
    tile: int
    added: datetime
    by: str


class DataSetStatus(_Frozen):
    """A data set."""

    name: str
    owner: str
    team: str | None
    created: datetime
    items: int
    finished: int = Field(description="Items with a finished region.")
    splits: Mapping[str, int]
    version: str | None = Field(description="Hash of the content, as the registry records it; null without items.")
    kind: str = "labels"


class Change(_Frozen):
    """The part of an image that edits changed."""

    revision: int
    changed: tuple[int, int, int, int] | None = Field(description="[x0, y0, x1, y1] of the changed pixels.")
    frames: tuple[int, int] | None = Field(description="[first, last + 1] of the changed frames.")
    planes: tuple[int, int] | None = Field(description="[first, last + 1] of the changed planes.")
    objects: tuple[int, ...] = Field(description="The objects that were changed, made or removed.")


class EditLog(_Frozen):
    """All edits of an item."""

    revision: int
    edits: tuple[RecordedEdit, ...]


class ObjectTable(_Frozen):
    """All objects of an item."""

    columns: tuple[str, ...]
    rows: tuple[tuple[int | float | bool | str | None, ...], ...]


class BaseObjects(_Frozen):
    """The objects of the first labels; ``objects.json``."""

    objects: dict[int, CorrectedObject]
