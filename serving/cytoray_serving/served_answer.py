"""An answer from a service."""

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
    """An answer from a service; :mod:`cytoray_serving.headers` maps headers to fields.

    Attributes
    ----------
    body, media_type
        The encoded answer and its media type.
    model, version, digest
        The model that gave it; version None for a bundle folder.
    kind
        Kind of the answer: ``labels``, ``image``, ``class`` or ``lineage``.
    objects
        Number of objects, cells or tracks.
    steps
        Versions of the earlier models in order, such as the one that found the objects.
    seconds
        Seconds per stage, measured by the service.
    warnings
        What to know before using the answer; the answer in JSON has all, a header only the first.
    channels
        The chosen channels with their index in the file; empty if none were chosen.
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
        """The version right before this model: for cells and tracks, the one that found the objects."""
        return self.steps[-1] if self.steps else None

    def labels(self) -> NDArray[np.unsignedinteger[Any]]:
        """Return the label image of an answer in TIFF or label PNG.

        Raises
        ------
        RequestError
            The answer has another format.
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
            hint="request accept='image/tiff'"
            if self.kind == "labels"
            else f"use a segmentation model, not {self.model}",
        )

    def image(self) -> Image:
        """Return the image of an answer in TIFF, with its axes and the names of its channels.

        Raises
        ------
        RequestError
            The answer has another format: pictures have stretched contrast.
        """
        from cytoray_analysis.images import read_image

        if self.media_type != "image/tiff":
            raise RequestError(
                f"expected an answer in TIFF, got {self.media_type}",
                field="accept",
                hint="request accept='image/tiff'",
            )
        return read_image(self.body, name="the answer")

    def table(self) -> Any:
        """Return an answer in JSON as Python data, with the structure of a table of :mod:`cytoray_serving.schema`.

        Raises
        ------
        RequestError
            The answer has another form.
        """
        if "json" not in self.media_type:
            raise RequestError(
                f"expected an answer in JSON, got {self.media_type}",
                field="accept",
                hint="request accept='application/json'",
            )
        return json.loads(self.body)
