"""Checks the locations of a job before it is accepted."""

from __future__ import annotations

from cytoray_analysis.errors import MissingFileError, RequestError
from cytoray_services.storage.allowed import Allowed
from cytoray_services.storage.locate import locate
from cytoray_serving.jobs.request import JobRequest


def check_locations(request: JobRequest, allowed: Allowed) -> None:
    """Raise unless all inputs of a request exist and its output is empty.

    Raises
    ------
    RequestError
        A URI is malformed, or the output is not empty.
    ForbiddenError
        A location is not allowed.
    MissingFileError
        An input does not exist.
    """
    for field in ("input", "masks", "boxes"):
        uri = getattr(request, field)
        if uri is not None and not locate(uri, allowed, field=field).exists():
            raise MissingFileError(f"expected a file or a folder at {uri}, got none", field=field, hint="check the URI")
    output = locate(request.output, allowed, field="output")
    if request.output.startswith(("http://", "https://")):
        raise RequestError("expected a file or s3 URI for the output, got a web address", field="output")
    if output.exists() and (not output.is_folder() or output.children()):
        raise RequestError(
            f"expected an empty or new folder at {request.output}, got one with contents",
            field="output",
            hint="name a new folder: a job never replaces files",
        )
