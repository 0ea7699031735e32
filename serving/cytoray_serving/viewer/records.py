"""The JSON of stored images and their answers, also for the OpenAPI document."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from cytoray_analysis.kinds import TruthKind
from cytoray_analysis.selection import Selection
from cytoray_serving.schema import ModelAnswered, WarningRow


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Level(_Frozen):
    """The size of a level of a pyramid; each one has half the size of the one before."""

    width: int
    height: int


class Channel(_Frozen):
    """A channel and its contrast."""

    name: str
    low: float = Field(description="Default contrast: shown as black.")
    high: float = Field(description="Default contrast: shown as white.")
    min: float = Field(description="Lowest value in the image.")
    max: float = Field(description="Highest value in the image.")


class Pyramid(_Frozen):
    """Pixels as levels of tiles."""

    axes: dict[str, int] = Field(description="Length of the axes T, C, Z, Y and X; 1 for an axis that is missing.")
    channels: list[Channel] = Field(description="Empty for labels.")
    rgb: bool = Field(description="Whether the channels are red, green and blue, shown as one picture.")
    levels: list[Level]
    tile: int = Field(description="Width and height of a tile in pixels.")


class StoredImage(Pyramid):
    """An image that is kept for its owner."""

    id: str
    name: str
    owner: str
    uri: str | None = Field(default=None, description="Where the image is, if it was named by a URI.")
    created: datetime
    expires: datetime = Field(description="It is removed then, unless it is used before.")
    bytes: int = Field(description="Disk space of the image, its levels and its answers.")
    pixel_size: dict[str, float | None] = Field(description="Micrometres along Z, Y and X; null if unknown.")
    warnings: list[WarningRow] = []
    selection: Selection = Field(
        default=Selection(), description="Which image of the file, and the meaning of its axes."
    )


class ImageList(_Frozen):
    """The stored images of the caller, newest first."""

    images: list[StoredImage]


class AskedAnswer(Selection):
    """A request for an answer about a stored image."""

    model: str = Field(description="A model, with @alias if not the champion.", min_length=1, max_length=200)
    version: int | None = Field(default=None, ge=0, lt=10**9, description="Version of the model; 0 comes with Cytoray.")
    segmentation: str | None = Field(default=None, description="A model that finds the objects.", max_length=1024)


class StoredAnswer(Pyramid):
    """An answer about a stored image. Its levels are those of the labels or of the predicted image; boxes have none."""

    id: str
    image: str
    kind: TruthKind
    model: ModelAnswered
    question: dict[str, Any] = Field(description="The request.")
    created: datetime
    steps: list[str] = Field(default=[], description="Earlier versions of a pipeline, such as the one of the objects.")
    objects: int
    seconds: float = Field(description="Until the model had answered.")
    warnings: list[WarningRow]
    classes: list[str] = Field(default=[], description="Names of the classes.")
    columns: list[str] = Field(description="Columns of the table of objects.")


class AnswerList(_Frozen):
    """The answers about a stored image, newest first."""

    answers: list[StoredAnswer]


class ObjectsTable(_Frozen):
    """The objects of an answer, a row each."""

    columns: list[str]
    rows: list[list[float | int | str | None]]
