"""The settings of stored images."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ViewerConfig(BaseModel):
    """Stored images, which the page shows.

    Attributes
    ----------
    keep_hours
        Hours after the last use until an image and its answers are removed.
    caller_megabytes
        Disk space of the images of one caller (the name of a token), with their levels and answers.
    megabytes
        Disk space of all images.
    image_megabytes
        Maximum size of one image on disk, decoded and with its levels.
    cpus
        Cores that the process of the viewer reserves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep_hours: float = Field(default=24.0, gt=0)
    caller_megabytes: int = Field(default=8192, ge=1)
    megabytes: int = Field(default=65536, ge=1)
    image_megabytes: int = Field(default=4096, ge=1)
    cpus: float = Field(default=0.0, ge=0)
