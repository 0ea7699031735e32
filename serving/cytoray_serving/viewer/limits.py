"""The settings of stored images."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class ViewerConfig(BaseModel):
    """Stored images and data sets, which the page shows.

    Attributes
    ----------
    keep_hours
        Hours after the last use until an image and its answers are removed.
    caller_megabytes
        Disk space of the images of one caller (the name of a token), with their levels and answers.
    megabytes
        Disk space of all images.
    owner_megabytes
        Disk space of the data sets of one owner.
    image_megabytes
        Maximum size of one image on disk, decoded and with its levels.
    min_replicas
        0 starts the process of the viewer at the first request, and stops it after `idle_seconds`; 1 keeps it.
    idle_seconds
        Seconds without a request until it stops, if `min_replicas` is 0.
    cpus
        Cores that it reserves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep_hours: float = Field(default=24.0, gt=0)
    caller_megabytes: int = Field(default=8192, ge=1)
    megabytes: int = Field(default=65536, ge=1)
    owner_megabytes: int = Field(default=65536, ge=1)
    image_megabytes: int = Field(default=4096, ge=1)
    min_replicas: int = Field(default=1, ge=0, le=1)
    idle_seconds: float = Field(default=300.0, gt=0)
    cpus: float = Field(default=0.0, ge=0)

    @property
    def scaling(self) -> dict[str, Any]:
        """Return the number of its processes, as Ray Serve takes it."""
        if self.min_replicas:
            return {"num_replicas": 1}
        limits = {"min_replicas": 0, "max_replicas": 1, "upscale_delay_s": 0.0, "downscale_delay_s": self.idle_seconds}
        return {"autoscaling_config": limits}
