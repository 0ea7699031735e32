"""A small typed client of the service.

>>> with Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
...     labels = client.predict("cells.tif", model="nuclei").labels()
"""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from cytoray_analysis import errors
from cytoray_analysis.errors import CytorayError, MissingFileError, PlatformError, RequestError
from cytoray_serving.schema import ErrorBody, ModelList, ModelStatus

if TYPE_CHECKING:
    from cytoray_analysis.images import Image

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
    kind
        What it is: ``labels``, ``image``, ``class`` or ``lineage``.
    objects
        Objects, cells or tracks that it holds.
    segmentation
        Version of the model that found the objects; None where none was named.
    seconds
        Per stage, as the service measured them.
    """

    body: bytes
    media_type: str
    model: str
    version: str | None
    digest: str
    kind: str
    objects: int
    segmentation: str | None
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

    def image(self) -> Image:
        """Return the predicted image of an answer in TIFF, with the names of its channels.

        Raises
        ------
        ImageError
            The answer has another form.
        """
        from cytoray_analysis.images import read_image

        return read_image(self.body, name="the answer")

    def table(self) -> Any:
        """Return an answer in JSON as Python data; its form is that of a table of :mod:`cytoray_serving.schema`.

        Raises
        ------
        RequestError
            The answer has another form.
        """
        if "json" not in self.media_type:
            raise RequestError(
                f"expected an answer in JSON, got {self.media_type}",
                field="accept",
                hint="ask with accept='application/json'",
            )
        return json.loads(self.body)


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

    def predict(
        self,
        image: str | Path | bytes,
        *,
        model: str,
        accept: str | None = None,
        masks: str | Path | bytes | None = None,
        boxes: Sequence[Sequence[float]] | None = None,
        segmentation: str | None = None,
    ) -> ServedAnswer:
        """Ask for the answer to one image or movie.

        Parameters
        ----------
        image
            A file, the bytes of one, or a folder of frames ``t000.tif``, which are sent as one movie.
        model
            Name of a served model, such as ``nuclei`` or ``nuclei@champion``.
        accept
            Media types to choose from, see :mod:`cytoray_serving.answers`; the first form of the model's answers by
            default.
        masks
            A label image whose objects are asked about, or of a movie all its masks; given as `image` is.
        boxes
            Cells that are asked about: ``[[xmin, ymin, xmax, ymax], …]`` in pixels.
        segmentation
            A registered model that finds the objects, such as ``nuclei@champion``.

        Raises
        ------
        InputError
            What the service refused, as the same error that the library raises.
        PlatformError
            The service does not answer, or failed.
        """
        files = {"image": _file_bytes(image)} | ({} if masks is None else {"masks": _file_bytes(masks)})
        fields = {} if boxes is None else {"boxes": json.dumps([list(box) for box in boxes])}
        fields |= {} if segmentation is None else {"segmentation": segmentation}
        path = f"/models/{model.replace('/', '@')}/predict"
        headers = {"Accept": accept or "*/*"}
        if fields or masks is not None:
            parts = {name: (name, body, "application/octet-stream") for name, body in files.items()}
            response = self._send("POST", path, files=parts, data=fields, headers=headers)
        else:
            headers["Content-Type"] = "application/octet-stream"
            response = self._send("POST", path, content=files["image"], headers=headers)
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
        return ModelStatus.model_validate_json(self._send("GET", f"/models/{name.replace('/', '@')}").content)

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

    def _send(self, method: str, path: str, **parts: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **parts)
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
