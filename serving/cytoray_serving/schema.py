"""The JSON that the service speaks, as pydantic models; the OpenAPI document is made from them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cytoray_analysis.tasks import TruthKind


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class UriQuestion(_Frozen):
    """A question whose files lie somewhere else; the service must be allowed to read there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str = Field(description="URI of the image: s3://, https:// or file://.", min_length=1)
    masks: str | None = Field(default=None, description="URI of a label image of the same size.")
    boxes: list[list[float]] | None = Field(default=None, description="[[xmin, ymin, xmax, ymax], …] in pixels.")
    segmentation: str | None = Field(default=None, description="A registered model that finds the objects.")
    output: str | None = Field(
        default=None, description="URI for the answer; the request then becomes a job, and 303 says where it is."
    )
    format: str | None = Field(default=None, description="Form of the answer at `output`, such as zarr or geojson.")


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


class ObjectRow(_Frozen):
    """One object of an answer; coordinates in pixels of the image that was sent, in the order of its spatial axes."""

    label: int
    area: int = Field(description="Pixels.")
    centroid: list[float]
    bbox: list[int] = Field(description="First row, first column, then one past the last row and column.")
    intensity_mean: list[float] | None = Field(
        default=None, description="Mean of each channel; null where a stack was answered with a plane."
    )
    confidence: float | None = Field(default=None, description="How sure it is, 0 to 1; null where the model is mute.")


class ObjectTable(_Frozen):
    """The objects of an answer as a table."""

    kind: Literal["labels"] = "labels"
    model: ModelAnswered
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
    axes: str
    shape: list[int]
    seconds: dict[str, float] = Field(description="Seconds per stage.")
    channels: list[ChannelRow]


class ClassProbability(_Frozen):
    """A class and how probable it is."""

    label: str
    probability: float


class CellRow(_Frozen):
    """One cell that was classified; coordinates in pixels of the image that was sent."""

    number: int = Field(description="Its number in the masks, or in the list of boxes from 1.")
    box: list[float] = Field(description="Where it begins along each spatial axis, rows first; then where it ends.")
    label: str = Field(description="The most probable class.")
    probabilities: list[float] = Field(description="Of every class, in the order of the classes.")
    top: list[ClassProbability] = Field(description="The most probable classes, three at most.")


class ClassTable(_Frozen):
    """The classes of the cells of an image."""

    kind: Literal["class"] = "class"
    model: ModelAnswered
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
