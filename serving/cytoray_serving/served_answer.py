"""An answer as it comes back from a service."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.answer_warnings import Warnings
from cytoray_analysis.errors import RequestError
from cytoray_serving.schema import ChannelChosen

if TYPE_CHECKING:
    from cytoray_analysis.images import Image


@dataclass(frozen=True)
class ServedAnswer:
    """An answer of the service; :mod:`cytoray_serving.headers` says which header fills which field.

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
    steps
        Versions of the models that worked before it, in order, such as the one that found the objects.
    seconds
        Per stage, as the service measured them.
    warnings
        What should be known before the answer is used; more than fits into a header is in the answer in JSON.
    channels
        Those of the image that were chosen, with their numbers in the file; empty where none were.
    """

    body: bytes
    media_type: str
    model: str
    version: str | None
    digest: str
    kind: str
    objects: int
    steps: tuple[str, ...]
    seconds: dict[str, float]
    warnings: Warnings = ()
    channels: tuple[ChannelChosen, ...] = ()

    @property
    def segmentation(self) -> str | None:
        """The version that worked right before this model: of cells and tracks, the one that found the objects."""
        return self.steps[-1] if self.steps else None

    def labels(self) -> NDArray[np.unsignedinteger[Any]]:
        """Return the label image of an answer in TIFF or label PNG.

        Raises
        ------
        RequestError
            The answer has another form.
        """
        if self.kind == "labels" and self.media_type == "image/tiff":
            import tifffile

            return np.asarray(tifffile.imread(io.BytesIO(self.body)))
        if self.media_type == "image/png; content=labels":
            import imagecodecs

            return np.asarray(imagecodecs.png_decode(self.body))
        raise RequestError(
            f"expected an answer that is a label image, got {self.media_type} of the kind {self.kind!r}",
            field="accept",
            hint="ask with accept='image/tiff'"
            if self.kind == "labels"
            else f"ask a model of labels, not {self.model}",
        )

    def image(self) -> Image:
        """Return the image of an answer in TIFF, with its axes and the names of its channels.

        Raises
        ------
        RequestError
            The answer has another form: pictures are stretched for the eye.
        """
        from cytoray_analysis.images import read_image

        if self.media_type != "image/tiff":
            raise RequestError(
                f"expected an answer in TIFF, got {self.media_type}",
                field="accept",
                hint="ask with accept='image/tiff'",
            )
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
