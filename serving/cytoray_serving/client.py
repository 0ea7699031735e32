"""A small typed client of the service.

>>> with Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
...     labels = client.predict("cells.tif", model="nuclei").labels()
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from cytoray_analysis import errors
from cytoray_analysis.errors import CytorayError, MissingFileError, PlatformError, RequestError
from cytoray_serving.schema import ErrorBody, ModelList, ModelStatus

# A metric's name, any parameters but a duration, then the duration; commas and semicolons may stand in quotes.
_DURATION = re.compile(r'([\w-]+)(?:;\s*(?!dur=)[\w-]+(?:=(?:"[^"]*"|[^;,"]*))?)*;\s*dur=([0-9]+(?:\.[0-9]+)?)')


@dataclass(frozen=True)
class ServedAnswer:
    """An answer of the service.

    Attributes
    ----------
    body, media_type
        The answer itself, and what it is.
    model, version, digest
        Which model gave it; version None for a bundle folder.
    objects
        Objects that it holds.
    seconds
        Per stage, as the service measured them.
    """

    body: bytes
    media_type: str
    model: str
    version: str | None
    digest: str
    objects: int
    seconds: dict[str, float]

    def labels(self) -> NDArray[np.unsignedinteger[Any]]:
        """Return the label image of an answer in TIFF or label PNG.

        Raises
        ------
        RequestError
            The answer has another form.
        """
        if self.media_type == "image/tiff":
            import tifffile

            return np.asarray(tifffile.imread(io.BytesIO(self.body)))
        if self.media_type == "image/png; content=labels":
            import imagecodecs

            return np.asarray(imagecodecs.png_decode(self.body))
        raise RequestError(
            f"expected an answer that is a label image, got {self.media_type}",
            field="accept",
            hint="ask with accept='image/tiff'",
        )


class Client:
    """Asks a running service; a context manager that closes its connections.

    Parameters
    ----------
    url
        Address of the service, such as ``http://127.0.0.1:8000``.
    timeout
        Seconds to wait for an answer.

    Raises
    ------
    RequestError
        `url` is no http or https address.
    """

    def __init__(self, url: str, *, timeout: float = 300.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise RequestError(f"expected an address such as http://127.0.0.1:8000, got {url!r}", field="url")
        self.url = url.rstrip("/")
        self._http = httpx.Client(base_url=self.url, timeout=httpx.Timeout(timeout, connect=10.0))

    def predict(self, image: str | Path | bytes, *, model: str, accept: str = "image/tiff") -> ServedAnswer:
        """Ask for the answer to one image.

        Parameters
        ----------
        image
            A file, or the bytes of one.
        model
            Name of a served model, such as ``nuclei`` or ``nuclei@champion``.
        accept
            Media types to choose from, see :mod:`cytoray_serving.answers`.

        Raises
        ------
        InputError
            What the service refused, as the same error that the library raises.
        PlatformError
            The service does not answer, or failed.
        """
        body = image if isinstance(image, bytes) else _file_bytes(Path(image))
        response = self._send(
            "POST",
            f"/models/{model.replace('/', '@')}/predict",
            content=body,
            headers={"Accept": accept, "Content-Type": "application/octet-stream"},
        )
        headers = response.headers
        return ServedAnswer(
            body=response.content,
            media_type=headers.get("Content-Type", ""),
            model=headers.get("X-Cytoray-Model", model),
            version=headers.get("X-Cytoray-Version"),
            digest=headers.get("X-Cytoray-Digest", ""),
            objects=int(headers.get("X-Cytoray-Objects", 0)),
            seconds=parse_server_timing(headers.get("Server-Timing", "")),
        )

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

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(
        self, method: str, path: str, *, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        try:
            response = self._http.request(method, path, content=content, headers=headers)
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
        if response.is_error:
            raise error_of_response(response.status_code, response.content)
        return response


def error_of_response(status: int, body: bytes) -> CytorayError:
    """Turn an error response back into the error that the service raised."""
    try:
        described = ErrorBody.model_validate_json(body)
    except ValidationError:
        kind: type[CytorayError] = RequestError if status < 500 else PlatformError
        return kind(f"the service answered with status {status}: {body[:200].decode(errors='replace')}")
    named = getattr(errors, described.error, None)
    if not (isinstance(named, type) and issubclass(named, CytorayError)):
        named = RequestError if status < 500 else PlatformError
    return named(described.message, field=described.field, hint=described.hint)


def parse_server_timing(header: str) -> dict[str, float]:
    """Read seconds per stage from a ``Server-Timing`` header, whose durations are milliseconds."""
    return {name: float(value) / 1e3 for name, value in _DURATION.findall(header)}


def _file_bytes(path: Path) -> bytes:
    if not path.exists():
        raise MissingFileError(f"{path} does not exist", hint="check the path")
    if path.is_dir():
        raise RequestError(
            f"expected an image file to send, got the folder {path}",
            hint="predict OME-Zarr folders without --url, with the model of the registry",
        )
    return path.read_bytes()
