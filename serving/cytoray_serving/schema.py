"""The JSON that the service speaks, as pydantic models; the OpenAPI document is made from them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class ErrorBody(_Frozen):
    """What every refused request is answered with."""

    error: str = Field(description="Name of the error, such as UnreadableImageError.")
    message: str = Field(description="What was expected and what came.")
    field: str | None = Field(default=None, description="The offending field, header or argument.")
    hint: str | None = Field(default=None, description="What to do about it.")


class ModelAnswered(_Frozen):
    """The model that gave an answer."""

    name: str
    version: str | None = Field(description="Version in the registry; null for a bundle folder.")
    digest: str = Field(description="SHA-256 of the model's specification and weights.")


class ModelStatus(ModelAnswered):
    """A model that is being served."""

    reference: str = Field(description="What the service was asked to follow, such as nuclei@champion.")
    task: str
    axes: str = Field(description="Axes of the input, such as CYX.")
    channels: list[str]
    grey_as_rgb: bool = Field(description="Whether an image of one channel is taken for every channel.")
    pixel_size: dict[str, float] | None = Field(description="Micrometres per axis that images are resampled to.")
    loaded: str = Field(description="When this version was loaded, ISO 8601.")
    registry: str = Field(description="'following', 'fixed', or why the alias cannot be followed right now.")


class ModelList(_Frozen):
    """All models that are being served."""

    models: list[ModelStatus]


class Live(_Frozen):
    """The gateway runs."""

    status: Literal["alive"] = "alive"


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


class ObjectTable(_Frozen):
    """The objects of an answer as a table."""

    model: ModelAnswered
    shape: list[int]
    seconds: dict[str, float] = Field(description="Seconds per stage.")
    objects: list[ObjectRow]


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
