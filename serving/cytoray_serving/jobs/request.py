"""What a job is asked, and what it says of itself."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from cytoray_analysis.selection import Selection
from cytoray_services.http_errors import ErrorBody
from cytoray_serving.schema import ModelAnswered

State = Literal["queued", "running", "done", "failed", "cancelled"]
SHOWN_ERRORS = 20
SHOWN_LEFT_OUT = 20
_LONGEST = 4096

_EXAMPLE: JsonValue = {
    "input": "s3://plates/2026-03/",
    "output": "s3://results/2026-03/",
    "format": "csv",
    "pattern": "*.tif",
}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Shown(BaseModel):
    """What a service says; it may say more than the release of the caller knows."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class JobRequest(Selection):
    """Where the images are, what of them is asked about, and where their answers go."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    input: str = Field(
        min_length=1,
        max_length=_LONGEST,
        description="URI of an image, an OME-Zarr, a plate, a movie, or a folder of images: file, s3 or http(s).",
    )
    output: str = Field(
        min_length=1, max_length=_LONGEST, description="URI of a folder that holds nothing yet: file or s3."
    )
    format: str | None = Field(
        default=None,
        max_length=32,
        description="Form of the answers, such as tif, csv or geojson; zarr for OME-Zarr. The first of the model's "
        "kind by default; images too large for memory are always answered as OME-Zarr.",
    )
    masks: str | None = Field(
        default=None,
        max_length=_LONGEST,
        description="URI of a label image whose objects are asked about, or of a folder of them, by the images' names.",
    )
    boxes: str | None = Field(
        default=None, max_length=_LONGEST, description="URI of a CSV of boxes: xmin, ymin, xmax, ymax, and image."
    )
    segmentation: str | None = Field(
        default=None, max_length=_LONGEST, description="A registered model that finds the objects."
    )
    pattern: str = Field(
        default="*", min_length=1, max_length=256, description="Which names of a folder are taken, such as *.tif."
    )
    workers: int | None = Field(
        default=None, ge=1, le=4096, description="Processes at most; by default as many as the service gives a job."
    )


class ItemError(ErrorBody):
    """An image that was not answered."""

    item: str = Field(description="Its URI.")


class LeftOutItem(_Shown):
    """Something in the folder of the images that is not answered."""

    item: str = Field(description="Its name.")
    reason: str = Field(description="Why it was left out.")


class ItemWarning(_Shown):
    """A warning about the answer to an image."""

    item: str = Field(description="URI of the image.")
    code: str = Field(description="Short name of the kind of warning, such as pixel-size-unknown.")
    sentence: str = Field(description="What was found, and what was done about it.")


class JobStatus(_Shown):
    """Where a job stands."""

    id: str
    owner: str = Field(description="Who asked for it.")
    models: list[ModelAnswered] = Field(description="The exact versions that work, one after the other.")
    request: JobRequest
    state: State
    items_total: int | None = Field(default=None, description="Images; null until they are counted.")
    items_done: int = 0
    items_failed: int = 0
    items_warned: int = Field(default=0, description="Images whose answers have warnings.")
    blocks_total: int = Field(default=0, description="Of images that are too large for memory.")
    blocks_done: int = 0
    megapixels: float = Field(default=0.0, description="Of the images that were answered.")
    objects: int = Field(default=0, description="In their answers.")
    worker_megabytes: float = Field(default=0.0, description="Most memory that a worker held at a time.")
    created: datetime
    started: datetime | None = None
    ended: datetime | None = None
    updated: datetime = Field(description="When this was last written.")
    seconds: float = Field(default=0.0, description="From its start until it ended, or until now.")
    errors: list[ItemError] = Field(default=[], description=f"Of the first {SHOWN_ERRORS} images that failed.")
    items_left_out: int = Field(default=0, description="Names in the folder of the images that are not answered.")
    left_out: list[LeftOutItem] = Field(default=[], description=f"The first {SHOWN_LEFT_OUT} of them, and why.")
    warnings: list[ItemWarning] = Field(
        default=[], description=f"About the answers to the first {SHOWN_ERRORS} images that have any."
    )
    error: ErrorBody | None = Field(default=None, description="Why the job as a whole failed.")

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("done", "failed", "cancelled")


class DamagedJob(_Shown):
    """A job whose record cannot be read."""

    id: str
    error: ErrorBody = Field(description="Which file is wrong, and how.")


class JobList(_Shown):
    """Jobs, the newest first."""

    jobs: list[JobStatus]
    damaged: list[DamagedJob] = Field(default=[], description="Jobs of which nothing else is known, by their names.")


def event_id(status: JobStatus) -> str:
    """Return what tells one status of a job from another."""
    return f"{status.updated.timestamp():.6f}"
