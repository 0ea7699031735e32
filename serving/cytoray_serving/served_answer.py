"""An answer as it comes back from a service."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import RequestError

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


def parse_server_timing(header: str) -> dict[str, float]:
    """Read seconds per stage from a ``Server-Timing`` header, whose durations are milliseconds."""
    return {name: float(value) / 1e3 for name, value in _DURATION.findall(header)}
