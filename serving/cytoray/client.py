"""A client of a service with the interface of a model in this process."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, Unpack

from cytoray.answer import Answer
from cytoray.given_image import Source, image_of, is_file
from cytoray_analysis.selection import Choices
from cytoray_serving.client import Client as ServiceClient


class Client:
    """Client of a running service; a context manager that closes its connections.

    Parameters
    ----------
    url
        Address of the service, such as ``http://127.0.0.1:8000``.
    token
        Token for the service; by default the value of ``CYTORAY_TOKEN``, if it is set.
    timeout
        Seconds to wait for an answer.

    Attributes
    ----------
    service
        The full client of the service, including jobs.

    Raises
    ------
    RequestError
        `url` is not an http or https address.

    Examples
    --------
    >>> with cytoray.Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
    ...     client.predict("cells.tif", model="nuclei").table()
    """

    def __init__(self, url: str, *, token: str | None = None, timeout: float = 300.0) -> None:
        self.service = ServiceClient(url, token=token, timeout=timeout)

    def models(self) -> list[str]:
        """Return the names of the served models."""
        return [one.name for one in self.service.models()]

    def predict(
        self,
        image: Source,
        *,
        model: str,
        axes: str | None = None,
        masks: Source | None = None,
        boxes: Sequence[Sequence[float]] | None = None,
        segmentation: str | None = None,
        version: str | int | None = None,
        **choices: Unpack[Choices],
    ) -> Answer:
        """Predict one image or movie, as :meth:`cytoray.Model.predict`.

        Each format of the answer, such as the table, is requested on first use.

        Parameters
        ----------
        image, axes, masks, boxes, segmentation, choices
            See there; URIs (``s3``, ``http``, ``https``, ``file``) are read by the service.
        model
            Name of a served model, such as ``"nuclei"`` or ``"nuclei@champion"``.
        version
            A version of the model in the registry; by default the version of its alias.

        Raises
        ------
        InputError
            The service refused the request; the same error as from a model in this process.
        PlatformError
            The service does not answer or failed.
        """
        sent = image if is_file(image) else _file_of(image, axes)
        plain = None if axes is None else axes.replace("C", "")
        labelled = masks if masks is None or is_file(masks) else _file_of(masks, plain)

        def ask(accept: str | None, exactly: str | int | None) -> Any:
            return self.service.predict(
                sent,
                model=model,
                accept=accept,
                masks=labelled,
                boxes=boxes,
                segmentation=segmentation,
                version=exactly,
                **choices,
            )

        first = ask(None, version)
        # All formats come from one version, also if the alias moves in the meantime.
        return Answer(
            model=first.model,
            version=first.version,
            digest=first.digest,
            kind=first.kind,
            objects=first.objects,
            warnings=first.warnings,
            _ask=lambda media_type: ask(media_type, version or first.version).body,
            _known={first.media_type: first.body},
        )

    def close(self) -> None:
        """Close the connections."""
        self.service.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def _file_of(source: Source, axes: str | None) -> bytes:
    """Return an array or an image as the bytes of an OME-TIFF."""
    from cytoray_analysis.images import write_image

    with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
        path = Path(folder) / "image.ome.tif"
        write_image(path, image_of(source, axes))
        return path.read_bytes()
