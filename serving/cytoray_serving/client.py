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
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, get_args
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from cytoray_analysis.answer_warnings import Warnings, join_warnings
from cytoray_analysis.errors import MissingFileError, PlatformError, RequestError
from cytoray_analysis.selection import EVERYTHING, Choices, Selection, selection_error, selection_of
from cytoray_services.event_stream import MEDIA_TYPE, read_events
from cytoray_services.http_errors import error_of_response
from cytoray_serving.headers import parse_server_timing, read_answer
from cytoray_serving.jobs.request import JobList, JobRequest, JobStatus, State, event_id
from cytoray_serving.schema import ModelList, ModelStatus
from cytoray_serving.served_answer import ServedAnswer

__all__ = ["Client", "ServedAnswer", "parse_server_timing"]

log = logging.getLogger(__name__)

Form = TypeVar("Form", bound=BaseModel)
STATES = frozenset({"message", *get_args(State)})  # the names of events that say where a job stands

TOKEN = "CYTORAY_TOKEN"  # noqa: S105 - the name of a variable
_URI = re.compile(r"(file|s3|https?)://")
_POLL_SECONDS = 2.0
_EVENT_SECONDS = 60.0  # without an event, or a sign of life, until the stream is taken for lost


class Client:
    """Asks a running service; a context manager that closes its connections.

    Parameters
    ----------
    url
        Address of the service, such as ``http://127.0.0.1:8000``.
    timeout
        Seconds to wait for an answer.
    token
        What the service knows the caller by; that of the variable ``CYTORAY_TOKEN`` by default, if there is one.
    transport
        How it is reached; over the network by default.

    Raises
    ------
    RequestError
        `url` is no http or https address.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 300.0,
        token: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise RequestError(f"expected an address such as http://127.0.0.1:8000, got {url!r}", field="url")
        self.url = url.rstrip("/")
        token = token or os.environ.get(TOKEN)
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            self._http = httpx.Client(
                base_url=self.url,
                timeout=httpx.Timeout(timeout, connect=10.0),
                headers=headers,
                transport=transport,
            )
        except UnicodeEncodeError as error:
            raise RequestError("expected a token of plain letters and digits", field="token") from error

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
        """Ask for the answer to one image or movie.

        Parameters
        ----------
        image
            A file, the bytes of one, or a folder of frames ``t000.tif``, which are sent as one movie; or the URI of one
            (``s3``, ``http``, ``https``, ``file``), which the service reads itself.
        model
            Name of a served model, such as ``nuclei`` or ``nuclei@champion``.
        accept
            Media types to choose from, see :mod:`cytoray_serving.answers`; the first form of the model's answers by
            default.
        masks
            A label image whose objects are asked about, or of a movie all its masks; given as `image` is, by URI where
            that is one.
        boxes
            Cells that are asked about: ``[[xmin, ymin, xmax, ymax], …]`` in pixels.
        segmentation
            A registered model that finds the objects, such as ``nuclei@champion``.
        version
            A version of the model in the registry; the one that its alias points to by default.
        choices
            What of the image is asked about, such as ``channel="DAPI"``, ``channel=["DNA", "actin"]``,
            ``plane="max"`` or ``frame=3``: the fields of :class:`~cytoray_analysis.selection.Selection`.

        Raises
        ------
        InputError
            What the service refused, as the same error that the library raises.
        PlatformError
            The service does not answer, or failed.
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
                    f"expected the URI of masks beside the URI of an image, got {masks!r:.80}",
                    field="masks",
                    hint="give both as URIs, or both as files",
                )
            asked = {name: value for name, value in question.items() if value is not None} | selection.given()
            response = self._send("POST", path, json=asked, headers=headers)
        else:
            response, warnings = self._send_files(path, headers, image, masks, rows, segmentation, selection)
        try:
            answer = read_answer(response.content, response.headers)
            return replace(answer, warnings=join_warnings(warnings, answer.warnings))
        except ValueError as error:
            raise self._foreign(path) from error

    def model(self, name: str) -> ModelStatus:
        """Return what is served under a name.

        Raises
        ------
        ModelNotFoundError
            Nothing is.
        """
        return self._get(ModelStatus, _address(name, None))

    def models(self) -> list[ModelStatus]:
        """Return what is served."""
        return self._get(ModelList, "/models").models

    def ready(self) -> bool:
        """Return whether every model answers; False too when nothing listens."""
        try:
            self._send("GET", "/health/ready")
        except PlatformError:
            return False
        return True

    def submit_job(
        self,
        model: str,
        input: str,  # noqa: A002 - as requests call it
        output: str,
        *,
        version: str | None = None,
        **fields: Any,
    ) -> JobStatus:
        """Have images answered that are too many or too large for a request.

        Parameters
        ----------
        model, version
            As of :meth:`predict`.
        input, output
            URIs: what to answer, and a folder for the answers that holds nothing yet.
        fields
            Other fields of :class:`~cytoray_serving.jobs.request.JobRequest`, such as ``format``, ``pattern`` or
            ``plane``.

        Raises
        ------
        InputError
            What the service refused.
        """
        try:
            request = JobRequest(input=input, output=output, **fields)
        except ValidationError as error:
            first = error.errors()[0]
            if first["loc"] and first["loc"][0] in Selection.model_fields:
                raise selection_error(error) from error
            raise RequestError(first["msg"], field=".".join(str(part) for part in first["loc"])) from error
        path = f"{_address(model, version)}/jobs"
        response = self._send("POST", path, json=request.model_dump(exclude_defaults=True))
        return self._parsed(JobStatus, response.content, path)

    def job(self, job_id: str) -> JobStatus:
        """Return where a job stands.

        Raises
        ------
        JobNotFoundError
            There is none of that name.
        """
        return self._get(JobStatus, f"/jobs/{quote(job_id, safe='')}")

    def jobs(self) -> JobList:
        """Return where all jobs stand, the newest first, and which are damaged."""
        return self._get(JobList, "/jobs")

    def stop_job(self, job_id: str) -> JobStatus:
        """Cancel a job; what is finished stays."""
        path = f"/jobs/{quote(job_id, safe='')}"
        return self._parsed(JobStatus, self._send("DELETE", path).content, path)

    def job_log(self, job_id: str) -> str:
        """Return what the processes of a job said, the last megabyte of it."""
        return self._send("GET", f"/jobs/{quote(job_id, safe='')}/log").text

    def follow_job(self, job_id: str) -> Iterator[JobStatus]:
        """Yield where a job stands, now and whenever that changes, until it has ended.

        The service tells it as events; where the stream of them breaks off, the job is asked about every two seconds
        until there is a stream again. A service that starts anew meanwhile is waited for.

        Raises
        ------
        JobNotFoundError
            There is none of that name.
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
                log.warning("the events of %s broke off; polling until they are back", job_id)
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
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _events(self, job_id: str, last: JobStatus | None) -> Iterator[JobStatus]:
        """Yield the events of a job until their stream ends."""
        headers = {"Accept": MEDIA_TYPE, "Cache-Control": "no-store"}
        headers |= {} if last is None else {"Last-Event-ID": event_id(last)}
        seconds = httpx.Timeout(_EVENT_SECONDS, connect=10.0)
        path = f"/jobs/{quote(job_id, safe='')}/events"
        with self._reported(path), self._http.stream("GET", path, headers=headers, timeout=seconds) as response:
            if response.is_error:
                raise error_of_response(response.status_code, response.read())
            if response.headers.get("Content-Type", "").partition(";")[0].strip().lower() != MEDIA_TYPE:
                raise self._foreign(path)
            for event in read_events(response.iter_bytes()):
                if event.kind in STATES:  # others are for later releases
                    yield self._parsed(JobStatus, event.data, path)

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
        """Send files, and return the warnings of those that are put together here beside the answer."""
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
            return self._send("POST", path, files=parts, data=fields, headers=headers, params=query), warnings
        kind = {"Content-Type": "application/octet-stream"}
        return self._send("POST", path, content=body, headers={**headers, **kind}, params=query), warnings

    def _send(self, method: str, path: str, **parts: Any) -> httpx.Response:
        with self._reported(path):
            response = self._http.request(method, path, **parts)
        if response.is_error:
            raise error_of_response(response.status_code, response.content)
        return response

    def _get(self, form: type[Form], path: str) -> Form:
        return self._parsed(form, self._send("GET", path).content, path)

    def _parsed(self, form: type[Form], content: str | bytes, path: str) -> Form:
        """Read what the service says, in JSON."""
        try:
            return form.model_validate_json(content)
        except ValidationError as error:
            raise self._foreign(path) from error

    def _foreign(self, path: str) -> PlatformError:
        return PlatformError(
            f"{self.url} answered {path} with something that this release does not understand",
            field="url",
            hint="is this the address of a Cytoray service, and of the same release?",
        )

    @contextmanager
    def _reported(self, path: str) -> Iterator[None]:
        """Turn what goes wrong on the way to the service into one of our errors."""
        try:
            yield
        except httpx.InvalidURL as error:
            raise RequestError(f"{self.url}{path} is no address: {error}", field="url") from error
        except httpx.TimeoutException as error:
            raise PlatformError(
                f"{self.url} did not answer in time", hint="give the client a longer timeout"
            ) from error
        except httpx.HTTPError as error:
            raise PlatformError(
                f"{self.url} does not answer: {error}", field="url", hint="is the service running? cytoray serve MODEL"
            ) from error


def _address(model: str, version: str | int | None) -> str:
    name = quote(model.replace("/", "@"), safe="@")
    return f"/models/{name}" + ("" if version is None else f"/versions/{quote(str(version), safe='')}")


def _require_source(source: object, field: str) -> None:
    """Raise :class:`RequestError` for what is no file, such as an array; an empty path would be the current folder."""
    if not isinstance(source, str | os.PathLike | bytes) or source == "":
        raise RequestError(
            f"expected a path, a URI or the bytes of a file, got {source!r:.80} ({type(source).__name__})",
            field=field,
            hint="write an array into a file first, with cytoray_analysis.images.write_image",
        )


def _rows_of(boxes: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return boxes as JSON can hold them, whatever kind of numbers they are made of."""
    try:
        rows = [[float(side) for side in box] for box in boxes]
    except (TypeError, ValueError):
        rows = [[math.nan]]
    if not all(math.isfinite(side) for row in rows for side in row):
        raise RequestError(
            f"expected boxes as lists of finite numbers, got {boxes!r:.80}",
            field="boxes",
            hint="such as [[10, 20, 42, 50]]: xmin, ymin, xmax, ymax in pixels",
        )
    return rows


def _is_uri(source: str | Path | bytes) -> bool:
    return isinstance(source, str) and _URI.match(source) is not None


def _chosen_bytes(source: str | Path | bytes, selection: Selection) -> tuple[bytes, Warnings, Selection]:
    """Return the bytes of an image, its warnings that they cannot say, and what is left to be chosen of it.

    Frames in files of their own become one movie here, of what is chosen in each of them.
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
