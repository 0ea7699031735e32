"""The JSON of the service as pydantic models, also for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cytoray_analysis.kinds import TruthKind
from cytoray_analysis.selection import Selection
from cytoray_services.tokens.scopes import Team


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class UriQuestion(Selection):
    """A request with URIs of files in locations that the service is allowed to read."""

    image: str = Field(description="URI of the image: s3://, https:// or file://.", min_length=1)
    masks: str | None = Field(default=None, description="URI of a label image of the same size.")
    boxes: list[list[float]] | None = Field(default=None, description="[[xmin, ymin, xmax, ymax], …] in pixels.")
    segmentation: str | None = Field(default=None, description="A registered model that finds the objects.")
    output: str | None = Field(
        default=None, description="URI for the answer; the request then becomes a job, and the response is 303."
    )
    format: str | None = Field(default=None, description="Format of the answer at `output`, such as zarr or geojson.")
    team: Team | None = Field(default=None, description="Team of the job; by default the team of the token.")


class WarningRow(_Frozen):
    """A warning about an answer."""

    code: str = Field(description="Short name of the kind of warning, such as pixel-size-unknown.")
    sentence: str = Field(description="What was found, and what was done about it.")


class ChannelChosen(_Frozen):
    """A chosen channel of the image."""

    name: str
    number: int = Field(description="Index in the file, from 0.")


class ModelAnswered(_Frozen):
    """The model that gave an answer."""

    name: str
    version: str | None = Field(description="Version in the registry; null for a bundle folder.")
    digest: str = Field(description="SHA-256 of the model's specification and weights.")


class ModelStatus(ModelAnswered):
    """A served model."""

    reference: str = Field(description="The reference that the service follows, such as nuclei@champion.")
    task: str
    kind: TruthKind = Field(description="Kind of its answers: labels, image, class or lineage.")
    media_types: list[str] = Field(description="Formats of its answers, the default first.")
    axes: str = Field(description="Axes of the input, such as CYX; for movies they begin with T.")
    channels: list[str]
    grey_as_rgb: bool = Field(description="Whether an image with one channel is used for every channel.")
    pixel_size: dict[str, float] | None = Field(description="Micrometres per axis to which images are resampled.")
    steps: list[str] = Field(default=[], description="Earlier versions of a pipeline, in order.")
    canary: str | None = Field(default=None, description="A version that answers a share of requests, and the share.")
    shadow: str | None = Field(
        default=None, description="A version that also gets requests; its answers are discarded."
    )
    loaded: str = Field(description="Time when the service began to answer with this version, ISO 8601.")
    registry: str = Field(description="'following', 'fixed', or why the alias cannot be followed now.")


class ModelList(_Frozen):
    """All served models."""

    models: list[ModelStatus]


class Ready(_Frozen):
    """Every model answers."""

    status: Literal["ready"] = "ready"
    models: list[str]


_Z = "For a volume, or for planes that were predicted one by one; null in a plane."
_T = "For frames that were predicted one by one; null otherwise."


class BoxSides(_Frozen):
    """Start and end (exclusive) of a box in pixels of the input image."""

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
        Start and end along each axis.
    axes
        Names of the axes, such as ``"YX"`` or ``"TZYX"``.
    """
    ends = (("min", starts), ("max", stops))
    return {f"{axis}{end}": side for end, sides in ends for axis, side in zip(axes.lower(), sides, strict=True)}


class ObjectRow(BoxSides):
    """One object of an answer; coordinates in pixels of the input image, in the order of its spatial axes."""

    label: int
    area: int = Field(description="Pixels.")
    centroid: list[float]
    bbox: list[int] = Field(
        description="The box without names, for callers of earlier releases: first row, first column, then one past "
        "the last row and column.",
        json_schema_extra={"deprecated": True},
    )
    intensity_mean: list[float] | None = Field(
        default=None, description="Mean of each channel; null if the answer to a stack is one plane."
    )
    confidence: float | None = Field(default=None, description="Confidence from 0 to 1; null if the model has none.")


class ObjectTable(_Frozen):
    """The objects of an answer as a table."""

    kind: Literal["labels"] = "labels"
    model: ModelAnswered
    warnings: list[WarningRow] = Field(default=[], description="Assumptions, omissions and unknown facts.")
    channels: list[ChannelChosen] = Field(default=[], description="Chosen channels of the image, if any.")
    axes: str = Field(default="", description="Axes of the label image, such as YX; ZYX if each plane was predicted.")
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
    warnings: list[WarningRow] = Field(default=[], description="Assumptions, omissions and unknown facts.")
    input_channels: list[ChannelChosen] = Field(default=[], description="Chosen channels of the image, if any.")
    axes: str
    shape: list[int]
    seconds: dict[str, float] = Field(description="Seconds per stage.")
    channels: list[ChannelRow]


class ClassProbability(_Frozen):
    """A class and its probability."""

    label: str
    probability: float


class CellRow(BoxSides):
    """One classified cell; coordinates in pixels of the input image."""

    number: int = Field(description="Its number in the masks, or in the list of boxes from 1.")
    box: list[float] = Field(
        description="The box without names, for callers of earlier releases: start along each spatial axis, rows "
        "first; then the end.",
        json_schema_extra={"deprecated": True},
    )
    label: str = Field(description="The most probable class.")
    probabilities: list[float] = Field(description="Probability of every class, in the order of the classes.")
    top: list[ClassProbability] = Field(description="The most probable classes, three at most.")


class ClassTable(_Frozen):
    """The classes of the cells of an image."""

    kind: Literal["class"] = "class"
    model: ModelAnswered
    warnings: list[WarningRow] = Field(default=[], description="Assumptions, omissions and unknown facts.")
    channels: list[ChannelChosen] = Field(default=[], description="Chosen channels of the image, if any.")
    axes: str = Field(default="", description="Axes of the boxes, such as YX; ZYX if each plane was predicted.")
    classes: list[str]
    seconds: dict[str, float] = Field(description="Seconds per stage.")
    cells: list[CellRow]


class TrackRow(_Frozen):
    """One cell from its first frame to its last."""

    track: int
    begin: int = Field(description="First frame, from 0.")
    end: int = Field(description="Last frame.")
    parent: int | None = Field(description="The parent track; null if there is none.")
    confidence: float | None = Field(description="Lowest confidence of its links, from 0 to 1; null if unknown.")
    division_confidence: float | None = Field(
        default=None, description="Confidence of the division that ends it, from 0 to 1; null if there is none."
    )


class TrackTable(_Frozen):
    """The lineage of a movie."""

    kind: Literal["lineage"] = "lineage"
    model: ModelAnswered
    warnings: list[WarningRow] = Field(default=[], description="Assumptions, omissions and unknown facts.")
    channels: list[ChannelChosen] = Field(default=[], description="Chosen channels of the image, if any.")
    frames: int
    shape: list[int] = Field(description="Shape of a frame.")
    divisions: list[int] = Field(description="Tracks that end in a division.")
    seconds: dict[str, float] = Field(description="Seconds per stage.")
    tracks: list[TrackRow]


class Geometry(_Frozen):
    """A GeoJSON geometry (RFC 7946) in pixel coordinates, x before y."""

    type: Literal["Polygon", "MultiPolygon"]
    coordinates: list[Any]


class Feature(_Frozen):
    """One object as a GeoJSON feature with properties for QuPath."""

    type: Literal["Feature"] = "Feature"
    geometry: Geometry
    properties: dict[str, Any]


class FeatureCollection(_Frozen):
    """All objects of an answer as GeoJSON; to open it in QuPath, drop the file on the image."""

    type: Literal["FeatureCollection"] = "FeatureCollection"
    features: list[Feature]
