"""A small typed client of the service.

>>> with Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
...     labels = client.predict("cells.tif", model="nuclei").labels()
"""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from cytoray_analysis.errors import MissingFileError, PlatformError, RequestError
from cytoray_services.http_errors import error_of_response
from cytoray_serving.jobs.request import JobList, JobRequest, JobStatus, event_id
from cytoray_serving.schema import ModelList, ModelStatus
from cytoray_serving.served_answer import ServedAnswer, parse_server_timing

__all__ = ["Client", "ServedAnswer", "parse_server_timing"]

log = logging.getLogger(__name__)

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

    Raises
    ------
    RequestError
        `url` is no http or https address.
    """

    def __init__(self, url: str, *, timeout: float = 300.0, token: str | None = None) -> None:
        if not url.startswith(("http://", "https://")):
            raise RequestError(f"expected an address such as http://127.0.0.1:8000, got {url!r}", field="url")
        self.url = url.rstrip("/")
        token = token or os.environ.get(TOKEN)
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            self._http = httpx.Client(base_url=self.url, timeout=httpx.Timeout(timeout, connect=10.0), headers=headers)
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
        version: str | None = None,
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

        Raises
        ------
        InputError
            What the service refused, as the same error that the library raises.
        PlatformError
            The service does not answer, or failed.
        """
        headers = {"Accept": accept or "*/*"}
        path = f"{_address(model, version)}/predict"
        if _is_uri(image):
            question = {"image": image, "masks": masks, "boxes": boxes, "segmentation": segmentation}
            if masks is not None and not _is_uri(masks):
                raise RequestError(
                    f"expected the URI of masks beside the URI of an image, got {masks!r:.80}",
                    field="masks",
                    hint="give both as URIs, or both as files",
                )
            told = {name: value for name, value in question.items() if value is not None}
            response = self._send("POST", path, json=told, headers=headers)
        else:
            response = self._send_files(path, headers, image, masks, boxes, segmentation)
        said = response.headers
        return ServedAnswer(
            body=response.content,
            media_type=said.get("Content-Type", ""),
            model=said.get("X-Cytoray-Model", model),
            version=said.get("X-Cytoray-Version"),
            digest=said.get("X-Cytoray-Digest", ""),
            kind=said.get("X-Cytoray-Kind", ""),
            objects=int(said.get("X-Cytoray-Objects", 0)),
            segmentation=said.get("X-Cytoray-Segmentation"),
            seconds=parse_server_timing(said.get("Server-Timing", "")),
        )

    def model(self, name: str) -> ModelStatus:
        """Return what is served under a name.

        Raises
        ------
        ModelNotFoundError
            Nothing is.
        """
        return ModelStatus.model_validate_json(self._send("GET", _address(name, None)).content)

    def models(self) -> list[ModelStatus]:
        """Return what is served."""
        return ModelList.model_validate_json(self._send("GET", "/models").content).models

    def ready(self) -> bool:
        """Return whether every model answers; False too when nothing listens."""
        try:
            self._send("GET", "/health/ready")
        except PlatformError:
            return False
        return True

    def submit_job(self, model: str, input: str, output: str, *, version: str | None = None, **told: Any) -> JobStatus:  # noqa: A002
        """Have images answered that are too many or too large for a request.

        Parameters
        ----------
        model, version
            As of :meth:`predict`.
        input, output
            URIs: what to answer, and a folder for the answers that holds nothing yet.
        told
            Other fields of :class:`~cytoray_serving.jobs.request.JobRequest`, such as ``format`` or ``pattern``.

        Raises
        ------
        InputError
            What the service refused.
        """
        try:
            request = JobRequest(input=input, output=output, **told)
        except ValidationError as error:
            first = error.errors()[0]
            raise RequestError(first["msg"], field=".".join(str(part) for part in first["loc"])) from error
        response = self._send("POST", f"{_address(model, version)}/jobs", json=request.model_dump(exclude_none=True))
        return JobStatus.model_validate_json(response.content)

    def job(self, job_id: str) -> JobStatus:
        """Return where a job stands.

        Raises
        ------
        JobNotFoundError
            There is none of that name.
        """
        return JobStatus.model_validate_json(self._send("GET", f"/jobs/{quote(job_id, safe='')}").content)

    def jobs(self) -> list[JobStatus]:
        """Return where all jobs stand, the newest first."""
        return JobList.model_validate_json(self._send("GET", "/jobs").content).jobs

    def stop_job(self, job_id: str) -> JobStatus:
        """Cancel a job; what is finished stays."""
        return JobStatus.model_validate_json(self._send("DELETE", f"/jobs/{quote(job_id, safe='')}").content)

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
        told: JobStatus | None = None
        while told is None or not told.has_ended:
            try:
                for status in self._events(job_id, told):
                    if told is None or status.updated > told.updated or status.has_ended:
                        told = status
                        yield status
                if told is not None and told.has_ended:
                    return
                log.warning("the events of %s broke off; polling until they are back", job_id)
            except PlatformError as error:
                log.warning("%s; polling until it is back", error.message)
            time.sleep(_POLL_SECONDS)
            try:
                status = self.job(job_id)
            except PlatformError:
                continue
            if status != told:
                told = status
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

    def _events(self, job_id: str, told: JobStatus | None) -> Iterator[JobStatus]:
        """Yield the events of a job until their stream ends."""
        import httpx_sse

        headers = {} if told is None else {"Last-Event-ID": event_id(told)}
        seconds = httpx.Timeout(_EVENT_SECONDS, connect=10.0)
        path = f"/jobs/{quote(job_id, safe='')}/events"
        with (
            self._reported(path),
            httpx_sse.connect_sse(self._http, "GET", path, headers=headers, timeout=seconds) as source,
        ):
            if source.response.is_error:
                raise error_of_response(source.response.status_code, source.response.read())
            for event in source.iter_sse():
                yield JobStatus.model_validate_json(event.data)

    def _send_files(
        self,
        path: str,
        headers: Mapping[str, str],
        image: str | Path | bytes,
        masks: str | Path | bytes | None,
        boxes: Sequence[Sequence[float]] | None,
        segmentation: str | None,
    ) -> httpx.Response:
        files = {"image": _file_bytes(image)} | ({} if masks is None else {"masks": _file_bytes(masks)})
        fields = {} if boxes is None else {"boxes": json.dumps([list(box) for box in boxes])}
        fields |= {} if segmentation is None else {"segmentation": segmentation}
        if fields or masks is not None:
            parts = {name: (name, body, "application/octet-stream") for name, body in files.items()}
            return self._send("POST", path, files=parts, data=fields, headers=headers)
        kind = {"Content-Type": "application/octet-stream"}
        return self._send("POST", path, content=files["image"], headers={**headers, **kind})

    def _send(self, method: str, path: str, **parts: Any) -> httpx.Response:
        with self._reported(path):
            response = self._http.request(method, path, **parts)
        if response.is_error:
            raise error_of_response(response.status_code, response.content)
        return response

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


def _address(model: str, version: str | None) -> str:
    name = quote(model.replace("/", "@"), safe="@")
    return f"/models/{name}" + ("" if version is None else f"/versions/{quote(version, safe='')}")


def _is_uri(source: str | Path | bytes) -> bool:
    return isinstance(source, str) and _URI.match(source) is not None


def _file_bytes(source: str | Path | bytes) -> bytes:
    """Return the bytes of an image file; the numbered frames or masks of a folder become one OME-TIFF."""
    if isinstance(source, bytes):
        return source
    path = Path(source)
    if not path.exists():
        raise MissingFileError(f"{path} does not exist", hint="check the path")
    if not path.is_dir():
        return path.read_bytes()
    from cytoray_analysis.images import write_image
    from cytoray_serving.inputs import holds_frames, holds_masks, open_input, open_masks

    if not holds_frames(path) and not holds_masks(path):
        raise RequestError(
            f"expected an image file to send, or a folder of numbered frames, got the folder {path}",
            hint="predict OME-Zarr folders without --url, with the model of the registry",
        )
    movie = open_input(path) if holds_frames(path) else open_masks(path)
    with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
        write_image(Path(folder) / "movie.ome.tif", movie)
        return (Path(folder) / "movie.ome.tif").read_bytes()
