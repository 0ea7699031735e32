"""A small typed client of the service.

>>> with Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
...     labels = client.predict("cells.tif", model="nuclei").labels()
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, Unpack, get_args
from urllib.parse import quote

import httpx

from cytoray_analysis.answer_warnings import Warnings, join_warnings
from cytoray_analysis.errors import MissingFileError, PlatformError, RequestError
from cytoray_analysis.selection import EVERYTHING, Choices, Selection, selection_of
from cytoray_services.http.client import ServiceConnection
from cytoray_services.http.event_stream import MEDIA_TYPE, read_events
from cytoray_services.jobs.job import State
from cytoray_serving.headers import parse_server_timing, read_answer
from cytoray_serving.jobs.request import JobList, JobStatus, event_id, job_request
from cytoray_serving.schema import ModelList, ModelStatus
from cytoray_serving.served_answer import ServedAnswer

__all__ = ["Client", "ServedAnswer", "parse_server_timing"]

log = logging.getLogger(__name__)

STATES = frozenset({"message", *get_args(State)})  # names of events with the state of a job

_URI = re.compile(r"(file|s3|https?)://")
_POLL_SECONDS = 2.0
_EVENT_SECONDS = 60.0  # without an event or a keep-alive until the stream counts as lost


class Client:
    """Client of a running service; a context manager that closes its connections.

    Parameters
    ----------
    url
        Address of the service, such as ``http://127.0.0.1:8000``.
    timeout
        Seconds to wait for an answer.
    token
        Token for the service; by default the value of ``CYTORAY_TOKEN``, if it is set.
    transport
        Transport of HTTP; by default the network.

    Attributes
    ----------
    service
        The connection to the service.

    Raises
    ------
    RequestError
        `url` is not an http or https address.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 300.0,
        token: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.service = ServiceConnection(url, timeout=timeout, token=token, transport=transport)
        self.url = self.service.url

    def predict(
        self,
        image: str | Path | bytes,
        *,
        model: str,
        accept: str | None = None,
        masks: str | Path | bytes | None = None,
        boxes: Sequence[Sequence[float]] | None = None,
        segmentation: str | None = None,
        version: str | int | None = None,
        **choices: Unpack[Choices],
    ) -> ServedAnswer:
        """Request the answer to one image or movie.

        Parameters
        ----------
        image
            A file, its bytes, or a folder of frames ``t000.tif``, which are sent as one movie; or a URI (``s3``,
            ``http``, ``https``, ``file``), which the service reads.
        model
            Name of a served model, such as ``nuclei`` or ``nuclei@champion``.
        accept
            Accepted media types, see :mod:`cytoray_serving.answers`; by default the first form of the model's answers.
        masks
            A label image of the objects, or all masks of a movie; the same types as `image`, a URI if `image` is one.
        boxes
            Boxes of the cells: ``[[xmin, ymin, xmax, ymax], …]`` in pixels.
        segmentation
            A registered model that finds the objects, such as ``nuclei@champion``.
        version
            A version of the model in the registry; by default the version of its alias.
        choices
            The part of the image to use, such as ``channel="DAPI"``, ``channel=["DNA", "actin"]``,
            ``plane="max"`` or ``frame=3``: the fields of :class:`~cytoray_analysis.selection.Selection`.

        Raises
        ------
        InputError
            The service refused the request; the same error as from the library.
        PlatformError
            The service does not answer or failed.
        """
        selection = selection_of(choices)
        _require_source(image, "image")
        if masks is not None:
            _require_source(masks, "masks")
        rows = None if boxes is None else _rows_of(boxes)
        if not (accept or "").isascii():
            raise RequestError(f"expected media types such as image/tiff, got {accept!r:.80}", field="accept")
        headers = {"Accept": accept or "*/*"}
        path = f"{_address(model, version)}/predict"
        warnings: Warnings = ()
        if _is_uri(image):
            question = {"image": image, "masks": masks, "boxes": rows, "segmentation": segmentation}
            if masks is not None and not _is_uri(masks):
                raise RequestError(
                    f"expected masks as a URI, like the image, got {masks!r:.80}",
                    field="masks",
                    hint="give both as URIs or both as files",
                )
            asked = {name: value for name, value in question.items() if value is not None} | selection.given()
            response = self.service.send("POST", path, json=asked, headers=headers)
        else:
            response, warnings = self._send_files(path, headers, image, masks, rows, segmentation, selection)
        try:
            answer = read_answer(response.content, response.headers)
            return replace(answer, warnings=join_warnings(warnings, answer.warnings))
        except ValueError as error:
            raise self.service.foreign(path) from error

    def model(self, name: str) -> ModelStatus:
        """Return the model that is served under a name.

        Raises
        ------
        ModelNotFoundError
            No model has this name.
        """
        return self.service.get(ModelStatus, _address(name, None))

    def models(self) -> list[ModelStatus]:
        """Return all served models."""
        return self.service.get(ModelList, "/models").models

    def ready(self) -> bool:
        """Return whether every model answers; also False if nothing listens."""
        try:
            self.service.send("GET", "/health/ready")
        except PlatformError:
            return False
        return True

    def submit_job(
        self,
        model: str,
        input: str,  # noqa: A002 - the name of the field
        output: str,
        *,
        version: str | None = None,
        **fields: Any,
    ) -> JobStatus:
        """Submit a job for images that are too many or too large for a request.

        Parameters
        ----------
        model, version
            See :meth:`predict`.
        input, output
            URIs of the images and of an empty or new folder for the answers.
        fields
            Other fields of :class:`~cytoray_serving.jobs.request.JobRequest`, such as ``format``, ``pattern`` or
            ``plane``.

        Raises
        ------
        InputError
            The service refused the job.
        """
        request = job_request(input, output, **fields)
        path = f"{_address(model, version)}/jobs"
        response = self.service.send("POST", path, json=request.model_dump(exclude_defaults=True))
        return self.service.parsed(JobStatus, response.content, path)

    def job(self, job_id: str) -> JobStatus:
        """Return the status of a job.

        Raises
        ------
        JobNotFoundError
            There is no such job.
        """
        return self.service.get(JobStatus, f"/jobs/{quote(job_id, safe='')}")

    def jobs(self) -> JobList:
        """Return the status of all jobs, newest first, and the damaged ones."""
        return self.service.get(JobList, "/jobs")

    def stop_job(self, job_id: str) -> JobStatus:
        """Cancel a job; finished answers are kept."""
        path = f"/jobs/{quote(job_id, safe='')}"
        return self.service.parsed(JobStatus, self.service.send("DELETE", path).content, path)

    def job_log(self, job_id: str) -> str:
        """Return the last megabyte of the log of a job."""
        return self.service.send("GET", f"/jobs/{quote(job_id, safe='')}/log").text

    def follow_job(self, job_id: str) -> Iterator[JobStatus]:
        """Yield the status of a job, now and after each change, until it has ended.

        The service sends it as events. If the stream breaks off, the status is polled every two seconds until there is
        a stream again. If the service restarts in the meantime, this waits for it.

        Raises
        ------
        JobNotFoundError
            There is no such job.
        """
        last: JobStatus | None = None
        while last is None or not last.has_ended:
            try:
                for status in self._events(job_id, last):
                    if last is None or status.updated > last.updated or status.has_ended:
                        last = status
                        yield status
                if last is not None and last.has_ended:
                    return
                log.warning("the event stream of %s broke off; polling until it is back", job_id)
            except PlatformError as error:
                log.warning("%s; polling until it is back", error.message)
            time.sleep(_POLL_SECONDS)
            try:
                status = self.job(job_id)
            except PlatformError:
                continue
            if status != last:
                last = status
                yield status

    def close(self) -> None:
        """Close the connections."""
        self.service.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _events(self, job_id: str, last: JobStatus | None) -> Iterator[JobStatus]:
        """Yield the events of a job until the stream ends."""
        headers = {"Accept": MEDIA_TYPE, "Cache-Control": "no-store"}
        headers |= {} if last is None else {"Last-Event-ID": event_id(last)}
        path = f"/jobs/{quote(job_id, safe='')}/events"
        with self.service.stream(path, seconds=_EVENT_SECONDS, headers=headers) as response:
            if response.headers.get("Content-Type", "").partition(";")[0].strip().lower() != MEDIA_TYPE:
                raise self.service.foreign(path)
            for event in read_events(response.iter_bytes()):
                if event.kind in STATES:  # others are for later releases
                    yield self.service.parsed(JobStatus, event.data, path)

    def _send_files(
        self,
        path: str,
        headers: Mapping[str, str],
        image: str | Path | bytes,
        masks: str | Path | bytes | None,
        boxes: list[list[float]] | None,
        segmentation: str | None,
        selection: Selection,
    ) -> tuple[httpx.Response, Warnings]:
        """Send files; return the answer, and the warnings about files that are combined here."""
        body, warnings, left = _chosen_bytes(image, selection)
        query = left.given()
        files = {"image": body}
        if masks is not None:
            files["masks"], more = _file_bytes(masks, masks=True)
            warnings = join_warnings(warnings, more)
        fields = {} if boxes is None else {"boxes": json.dumps(boxes)}
        fields |= {} if segmentation is None else {"segmentation": segmentation}
        if fields or masks is not None:
            parts = {name: (name, body, "application/octet-stream") for name, body in files.items()}
            return self.service.send("POST", path, files=parts, data=fields, headers=headers, params=query), warnings
        kind = {"Content-Type": "application/octet-stream"}
        return self.service.send("POST", path, content=body, headers={**headers, **kind}, params=query), warnings


def _address(model: str, version: str | int | None) -> str:
    name = quote(model.replace("/", "@"), safe="@")
    return f"/models/{name}" + ("" if version is None else f"/versions/{quote(str(version), safe='')}")


def _require_source(source: object, field: str) -> None:
    """Raise :class:`RequestError` for other types, such as arrays; an empty path would be the current folder."""
    if not isinstance(source, str | os.PathLike | bytes) or source == "":
        raise RequestError(
            f"expected a path, a URI or the bytes of a file, got {source!r:.80} ({type(source).__name__})",
            field=field,
            hint="write an array to a file first, with cytoray_analysis.images.write_image",
        )


def _rows_of(boxes: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return boxes as plain numbers for JSON."""
    try:
        rows = [[float(side) for side in box] for box in boxes]
    except (TypeError, ValueError):
        rows = [[math.nan]]
    if not all(math.isfinite(side) for row in rows for side in row):
        raise RequestError(
            f"expected boxes as lists of finite numbers, got {boxes!r:.80}",
            field="boxes",
            hint="give for example [[10, 20, 42, 50]]: xmin, ymin, xmax, ymax in pixels",
        )
    return rows


def _is_uri(source: str | Path | bytes) -> bool:
    return isinstance(source, str) and _URI.match(source) is not None


def _chosen_bytes(source: str | Path | bytes, selection: Selection) -> tuple[bytes, Warnings, Selection]:
    """Return the bytes of an image, the warnings that the bytes do not contain, and the remaining selection.

    Frames in separate files are combined into one movie here, with the selection applied to each.
    """
    from cytoray_serving.inputs import is_zarr

    if isinstance(source, bytes) or not Path(source).is_dir() or is_zarr(Path(source)):
        return *_file_bytes(source), selection
    left = Selection(frame=selection.frame, plane=selection.plane if "Z" in selection.each else None)
    return *_file_bytes(source, selection.without(*left.given())), left


def _file_bytes(
    source: str | Path | bytes, selection: Selection = EVERYTHING, *, masks: bool = False
) -> tuple[bytes, Warnings]:
    """Return the bytes of an image file; the numbered frames or masks of a folder become one OME-TIFF."""
    if isinstance(source, bytes):
        return source, ()
    path = Path(source)
    if not path.exists():
        raise MissingFileError(f"{path} does not exist", hint="check the path")
    if not path.is_dir():
        return path.read_bytes(), ()
    from cytoray_analysis.images import write_image
    from cytoray_serving.inputs import is_zarr, open_input, open_masks

    if is_zarr(path):
        raise RequestError(
            f"expected an image file to send, or a folder of numbered frames, got the OME-Zarr {path}",
            hint="predict OME-Zarr folders without --url, with the model of the registry",
        )
    movie = open_masks(path) if masks else open_input(path, selection)
    with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
        write_image(Path(folder) / "movie.ome.tif", movie)
        return (Path(folder) / "movie.ome.tif").read_bytes(), movie.warnings
