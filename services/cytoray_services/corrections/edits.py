"""The edits that a person can make on the labels of an image.

Coordinates are ``[x, y]`` in pixels of the image: pixel ``(y, x)`` covers the square from ``(x, y)`` to
``(x + 1, y + 1)``, as in the outlines of answers. Frames ``t`` and planes ``z`` count from 0.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

LARGEST_LABEL = 2**24
"""Largest number of an object of an answer; new objects get the numbers above those that were used."""
MOST_POINTS = 4096
MOST_LABELS = 65_536
LARGEST_RADIUS = 512.0
MOST_EDITS = 100
"""Edits of one request."""
_FAR = 2.0**20  # pixels

Coordinate = Annotated[float, Field(ge=-_FAR, le=_FAR, allow_inf_nan=False)]
Point = tuple[Coordinate, Coordinate]
Outline = Annotated[tuple[Point, ...], Field(min_length=3, max_length=MOST_POINTS)]
Line = Annotated[tuple[Point, ...], Field(min_length=2, max_length=MOST_POINTS)]
Stroke = Annotated[tuple[Point, ...], Field(min_length=1, max_length=MOST_POINTS)]
Label = Annotated[int, Field(ge=1, lt=2**32)]
Labels = Annotated[tuple[Label, ...], Field(min_length=1, max_length=MOST_LABELS)]
Place = Annotated[int, Field(ge=0, lt=2**31)]
Number = Annotated[int, Field(ge=1, lt=2**31)]
ClassName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]


class _Edit(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)


class Region(_Edit):
    """A part of an image whose labels are complete and right.

    Attributes
    ----------
    t, z
        The frame and the plane; None for all.
    outline
        None for the whole plane.
    """

    t: Place | None = None
    z: Place | None = None
    outline: Outline | None = None


class Delete(_Edit):
    """Remove objects, in all frames and planes."""

    op: Literal["delete"] = "delete"
    labels: Labels


class Add(_Edit):
    """Add an object in the pixels whose centres lie inside an outline (even-odd rule)."""

    op: Literal["add"] = "add"
    t: Place = 0
    z: Place = 0
    outline: Outline
    over: bool = Field(False, description="Take pixels of other objects too; otherwise only free ones.")
    class_name: ClassName | None = Field(None, alias="class")


class Paint(_Edit):
    """Add the pixels under a brush to an object, or remove them from it.

    Without a label, a new object is painted.
    """

    op: Literal["paint"] = "paint"
    label: Label | None = None
    t: Place = 0
    z: Place = 0
    stroke: Stroke
    radius: Annotated[float, Field(ge=0.5, le=LARGEST_RADIUS, allow_inf_nan=False)]
    erase: bool = False
    over: bool = Field(False, description="Take pixels of other objects too; otherwise only free ones.")


class Merge(_Edit):
    """Make several objects one: the first keeps its number, class and origin."""

    op: Literal["merge"] = "merge"
    labels: Annotated[tuple[Label, ...], Field(min_length=2, max_length=MOST_LABELS)]


class Split(_Edit):
    """Divide an object of one frame along a line; the largest part keeps the number.

    Without a plane, all planes are divided.
    """

    op: Literal["split"] = "split"
    label: Label
    t: Place = 0
    z: Place | None = None
    line: Line


class Classify(_Edit):
    """Give objects a class, or remove it."""

    op: Literal["class"] = "class"
    labels: Labels
    class_name: ClassName | None = Field(alias="class")


class CopyPlane(_Edit):
    """Add the shape that an object has in one plane to another plane."""

    op: Literal["copy_plane"] = "copy_plane"
    label: Label
    t: Place = 0
    source: Place = Field(alias="from")
    target: Place = Field(alias="to")
    over: bool = False


class Interpolate(_Edit):
    """Add shapes of an object to the planes between two planes that contain it."""

    op: Literal["interpolate"] = "interpolate"
    label: Label
    t: Place = 0
    source: Place = Field(alias="from")
    target: Place = Field(alias="to")
    over: bool = False


class Finish(_Edit):
    """State that the labels of a region are complete and right."""

    op: Literal["finish"] = "finish"
    region: Region


class Reopen(_Edit):
    """State that a region is not finished; `region` is its number."""

    op: Literal["reopen"] = "reopen"
    region: Number


class Undo(_Edit):
    """Undo an edit; without a number, the newest one of the same person that is in force."""

    op: Literal["undo"] = "undo"
    edit: Number | None = None


class Redo(_Edit):
    """Do an undone edit again; without a number, the one that the same person undid last."""

    op: Literal["redo"] = "redo"
    edit: Number | None = None


Edit = Annotated[
    Delete | Add | Paint | Merge | Split | Classify | CopyPlane | Interpolate | Finish | Reopen | Undo | Redo,
    Field(discriminator="op"),
]
EDIT: TypeAdapter[Edit] = TypeAdapter(Edit)
