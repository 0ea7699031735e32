"""The request and the status of a job."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from cytoray_analysis.errors import RequestError
from cytoray_analysis.selection import Selection, selection_error
from cytoray_analysis.uris import without_secrets
from cytoray_services.http.errors import ErrorBody
from cytoray_services.jobs.job import State
from cytoray_services.tokens.scopes import Team
from cytoray_serving.schema import ModelAnswered

SHOWN_ERRORS = 20
SHOWN_LEFT_OUT = 20
_LONGEST = 4096

_EXAMPLE: JsonValue = {
    "input": "s3://plates/2026-03/",
    "output": "s3://results/2026-03/",
    "format": "csv",
    "pattern": "*.tif",
}


# The shown and logged parts of a job have no signatures of presigned URLs; the job itself keeps them.
ShownUri = Annotated[str, AfterValidator(without_secrets)]


class _Shown(BaseModel):
    """A response of a service, which may have more fields than the release of the caller knows."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class JobRequest(Selection):
    """The input, the options and the output of a job."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    input: str = Field(
        min_length=1,
        max_length=_LONGEST,
        description="URI of an image, an OME-Zarr, a plate, a movie, or a folder of images: file, s3 or http(s).",
    )
    output: str = Field(min_length=1, max_length=_LONGEST, description="URI of an empty or new folder: file or s3.")
    format: str | None = Field(
        default=None,
        max_length=32,
        description="Format of the answers, such as tif, csv or geojson; zarr for OME-Zarr. By default the first of "
        "the model's kind; answers to images too large for memory are always OME-Zarr.",
    )
    masks: str | None = Field(
        default=None,
        max_length=_LONGEST,
        description="URI of a label image of the objects, or of a folder of them with the names of the images.",
    )
    boxes: str | None = Field(
        default=None, max_length=_LONGEST, description="URI of a CSV of boxes: xmin, ymin, xmax, ymax, and image."
    )
    segmentation: str | None = Field(
        default=None, max_length=_LONGEST, description="A registered model that finds the objects."
    )
    pattern: str = Field(
        default="*", min_length=1, max_length=256, description="Pattern of the file names to use, such as *.tif."
    )
    workers: int | None = Field(
        default=None, ge=1, le=4096, description="Maximum number of workers; by default the limit of the service."
    )
    team: Team | None = Field(
        default=None,
        exclude_if=lambda team: team is None,  # earlier releases refuse the field
        description="Team of the job; by default the team of the token.",
    )

    def shown(self) -> JobRequest:
        """Return it without signatures of presigned URLs."""
        uris = {name: getattr(self, name) for name in ("input", "output", "masks", "boxes")}
        return self.model_copy(update={name: uri and without_secrets(uri) for name, uri in uris.items()})


def job_request(source: str, output: str, **fields: Any) -> JobRequest:
    """Return a request from the fields of a caller.

    Raises
    ------
    RequestError
        A field is unknown or wrong; the message names it.
    """
    try:
        return JobRequest(input=source, output=output, **fields)
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] and first["loc"][0] in Selection.model_fields:
            raise selection_error(error) from error
        raise RequestError(first["msg"], field=".".join(str(part) for part in first["loc"])) from error


class ItemError(ErrorBody):
    """An image that failed."""

    item: ShownUri = Field(description="Its URI.")


class LeftOutItem(_Shown):
    """A file or folder in the input that is not processed."""

    item: str = Field(description="Its name.")
    reason: str = Field(description="Why it was left out.")


class ItemWarning(_Shown):
    """A warning about the answer to an image."""

    item: ShownUri = Field(description="URI of the image.")
    code: str = Field(description="Short name of the kind of warning, such as pixel-size-unknown.")
    sentence: ShownUri = Field(description="What was found, and what was done about it.")


class JobStatus(_Shown):
    """The status of a job."""

    id: str
    owner: str = Field(description="Name of the token that submitted it.")
    team: str | None = Field(default=None, description="Team of the job; null for the owner only.")
    models: list[ModelAnswered] = Field(description="The exact versions of the models, in order.")
    request: Annotated[JobRequest, AfterValidator(JobRequest.shown)]
    state: State
    items_total: int | None = Field(default=None, description="Images; null until they are counted.")
    items_done: int = 0
    items_failed: int = 0
    items_warned: int = Field(default=0, description="Images whose answers have warnings.")
    blocks_total: int = Field(default=0, description="Blocks of images that are too large for memory.")
    blocks_done: int = 0
    megapixels: float = Field(default=0.0, description="Megapixels of the processed images.")
    objects: int = Field(default=0, description="Number of objects in the answers.")
    worker_megabytes: float = Field(default=0.0, description="Peak memory of a worker.")
    created: datetime
    started: datetime | None = None
    ended: datetime | None = None
    updated: datetime = Field(description="Time of the last update.")
    seconds: float = Field(default=0.0, description="Seconds from its start until its end, or until now.")
    errors: list[ItemError] = Field(default=[], description=f"Errors of the first {SHOWN_ERRORS} failed images.")
    items_left_out: int = Field(default=0, description="Number of names in the input folder that are not processed.")
    left_out: list[LeftOutItem] = Field(default=[], description=f"The first {SHOWN_LEFT_OUT} of them, with the reason.")
    warnings: list[ItemWarning] = Field(
        default=[], description=f"Warnings of the first {SHOWN_ERRORS} images that have any."
    )
    error: ErrorBody | None = Field(default=None, description="Why the job as a whole failed.")

    @property
    def has_ended(self) -> bool:
        """Whether the job has ended."""
        return self.state in ("done", "failed", "cancelled")


class DamagedJob(_Shown):
    """A job whose record cannot be read."""

    id: str
    error: ErrorBody = Field(description="The damaged file, and what is wrong.")


class JobList(_Shown):
    """Jobs, newest first."""

    jobs: list[JobStatus]
    damaged: list[DamagedJob] = Field(default=[], description="Jobs with a damaged record.")


def event_id(status: JobStatus) -> str:
    """Return a value that differs between two statuses of a job."""
    return f"{status.updated.timestamp():.6f}"
