"""The JSON that the service speaks, as pydantic models; the OpenAPI document is made from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cytoray_analysis.selection import Selection
from cytoray_analysis.tasks import TruthKind


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class UriQuestion(Selection):
    """A question whose files lie somewhere else; the service must be allowed to read there."""

    image: str = Field(description="URI of the image: s3://, https:// or file://.", min_length=1)
    masks: str | None = Field(default=None, description="URI of a label image of the same size.")
    boxes: list[list[float]] | None = Field(default=None, description="[[xmin, ymin, xmax, ymax], …] in pixels.")
    segmentation: str | None = Field(default=None, description="A registered model that finds the objects.")
    output: str | None = Field(
        default=None, description="URI for the answer; the request then becomes a job, and 303 says where it is."
    )
    format: str | None = Field(default=None, description="Form of the answer at `output`, such as zarr or geojson.")


class WarningRow(_Frozen):
    """What should be known before an answer is used."""

    code: str = Field(description="The same for the same kind of thing, such as pixel-size-unknown.")
    sentence: str = Field(description="What was found, and what was done about it.")


class ChannelChosen(_Frozen):
    """A channel of the image that was chosen."""

    name: str
    number: int = Field(description="In the file, from 0.")


class ModelAnswered(_Frozen):
    """The model that gave an answer."""

    name: str
    version: str | None = Field(description="Version in the registry; null for a bundle folder.")
    digest: str = Field(description="SHA-256 of the model's specification and weights.")


class ModelStatus(ModelAnswered):
    """A model that is being served."""

    reference: str = Field(description="What the service was asked to follow, such as nuclei@champion.")
    task: str
    kind: TruthKind = Field(description="What its answers are: labels, an image, classes or a lineage.")
    media_types: list[str] = Field(description="The forms that its answers come in, the default first.")
    axes: str = Field(description="Axes of the input, such as CYX; those of movies begin with T.")
    channels: list[str]
    grey_as_rgb: bool = Field(description="Whether an image of one channel is taken for every channel.")
    pixel_size: dict[str, float] | None = Field(description="Micrometres per axis that images are resampled to.")
    steps: list[str] = Field(default=[], description="Of a pipeline: the versions that work before it, in order.")
    canary: str | None = Field(default=None, description="A version that answers a share of the requests, and which.")
    shadow: str | None = Field(default=None, description="A version that is asked too and that nobody hears.")
    loaded: str = Field(description="When the service began to answer with this version, ISO 8601.")
    registry: str = Field(description="'following', 'fixed', or why the alias cannot be followed right now.")


class ModelList(_Frozen):
    """All models that are being served."""

    models: list[ModelStatus]


class Ready(_Frozen):
    """Every model answers."""

    status: Literal["ready"] = "ready"
    models: list[str]


_Z = "Of a volume, or of planes that were answered one by one; null in a plane."
_T = "Of frames that were answered one by one; null otherwise."


class BoxSides(_Frozen):
    """Where a box begins, and where it ends, outside of it; in pixels of the image that was sent."""

    xmin: int | float
    ymin: int | float
    zmin: int | float | None = Field(default=None, description=_Z)
    tmin: int | float | None = Field(default=None, description=_T)
    xmax: int | float
    ymax: int | float
    zmax: int | float | None = Field(default=None, description=_Z)
    tmax: int | float | None = Field(default=None, description=_T)


def box_sides(starts: Sequence[float], stops: Sequence[float], axes: str) -> dict[str, float]:
    """Return the sides of a box by name.

    Parameters
    ----------
    starts, stops
        Along each axis.
    axes
        Their names, such as ``"YX"`` or ``"TZYX"``.
    """
    ends = (("min", starts), ("max", stops))
    return {f"{axis}{end}": side for end, sides in ends for axis, side in zip(axes.lower(), sides, strict=True)}


class ObjectRow(BoxSides):
    """One object of an answer; coordinates in pixels of the image that was sent, in the order of its spatial axes."""

    label: int
    area: int = Field(description="Pixels.")
    centroid: list[float]
    bbox: list[int] = Field(
        description="The box without names, for callers of earlier releases: first row, first column, then one past "
        "the last row and column.",
        json_schema_extra={"deprecated": True},
    )
    intensity_mean: list[float] | None = Field(
        default=None, description="Mean of each channel; null where a stack was answered with a plane."
    )
    confidence: float | None = Field(default=None, description="How sure it is, 0 to 1; null where the model is mute.")


class ObjectTable(_Frozen):
    """The objects of an answer as a table."""

    kind: Literal["labels"] = "labels"
    model: ModelAnswered
    warnings: list[WarningRow] = Field(default=[], description="What was assumed, left out or unknown.")
    channels: list[ChannelChosen] = Field(default=[], description="Of the image, where some were chosen.")
    axes: str = Field(default="", description="Of the label image, such as YX; ZYX where each plane was answered.")
    shape: list[int]
    seconds: dict[str, float] = Field(description="Seconds per stage.")
    objects: list[ObjectRow]


class ChannelRow(_Frozen):
    """One channel of a predicted image, in its own units."""

    name: str
    min: float
    max: float
    mean: float


class ImageTable(_Frozen):
    """A predicted image in numbers."""

    kind: Literal["image"] = "image"
    model: ModelAnswered
    warnings: list[WarningRow] = Field(default=[], description="What was assumed, left out or unknown.")
    input_channels: list[ChannelChosen] = Field(default=[], description="Of the image, where some were chosen.")
    axes: str
    shape: list[int]
    seconds: dict[str, float] = Field(description="Seconds per stage.")
    channels: list[ChannelRow]


class ClassProbability(_Frozen):
    """A class and how probable it is."""

    label: str
    probability: float


class CellRow(BoxSides):
    """One cell that was classified; coordinates in pixels of the image that was sent."""

    number: int = Field(description="Its number in the masks, or in the list of boxes from 1.")
    box: list[float] = Field(
        description="The box without names, for callers of earlier releases: where it begins along each spatial axis, "
        "rows first; then where it ends.",
        json_schema_extra={"deprecated": True},
    )
    label: str = Field(description="The most probable class.")
    probabilities: list[float] = Field(description="Of every class, in the order of the classes.")
    top: list[ClassProbability] = Field(description="The most probable classes, three at most.")


class ClassTable(_Frozen):
    """The classes of the cells of an image."""

    kind: Literal["class"] = "class"
    model: ModelAnswered
    warnings: list[WarningRow] = Field(default=[], description="What was assumed, left out or unknown.")
    channels: list[ChannelChosen] = Field(default=[], description="Of the image, where some were chosen.")
    axes: str = Field(default="", description="Of the boxes, such as YX; ZYX where each plane was answered.")
    classes: list[str]
    seconds: dict[str, float] = Field(description="Seconds per stage.")
    cells: list[CellRow]


class TrackRow(_Frozen):
    """One cell from its first frame to its last."""

    track: int
    begin: int = Field(description="First frame, from 0.")
    end: int = Field(description="Last frame.")
    parent: int | None = Field(description="The track that it came from; null where there is none.")
    confidence: float | None = Field(description="How sure its least sure link is, 0 to 1; null where unknown.")


class TrackTable(_Frozen):
    """The lineage of a movie."""

    kind: Literal["lineage"] = "lineage"
    model: ModelAnswered
    warnings: list[WarningRow] = Field(default=[], description="What was assumed, left out or unknown.")
    channels: list[ChannelChosen] = Field(default=[], description="Of the image, where some were chosen.")
    frames: int
    shape: list[int] = Field(description="Of a frame.")
    divisions: list[int] = Field(description="Tracks that end in a division.")
    seconds: dict[str, float] = Field(description="Seconds per stage.")
    tracks: list[TrackRow]


class Geometry(_Frozen):
    """A GeoJSON geometry (RFC 7946) in pixel coordinates, x before y."""

    type: Literal["Polygon", "MultiPolygon"]
    coordinates: list[Any]


class Feature(_Frozen):
    """One object as a GeoJSON feature, with the properties that QuPath reads."""

    type: Literal["Feature"] = "Feature"
    geometry: Geometry
    properties: dict[str, Any]


class FeatureCollection(_Frozen):
    """All objects of an answer as GeoJSON; QuPath opens it by dropping the file on the image."""

    type: Literal["FeatureCollection"] = "FeatureCollection"
    features: list[Feature]
