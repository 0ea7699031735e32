"""The answer of a model, whether it ran in this process or in a service."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.answer_warnings import Warnings
from cytoray_analysis.errors import RequestError
from cytoray_analysis.files import write_whole
from cytoray_analysis.kinds import TruthKind
from cytoray_serving.answers import answer_kind, forms_of

if TYPE_CHECKING:
    import pandas

    from cytoray_analysis.tracking.lineage import Lineage

_TABLE = "application/vnd.apache.arrow.stream"


def suffixes_of(kind: TruthKind) -> dict[str, str]:
    """Return the media type for each ending of a file name; the longest matching ending counts."""
    forms = forms_of(kind).values()
    ends = {
        ("" if form.suffix[0] != "." else form.suffix) + (".zip" if form.write_folder else ""): form.media_type
        for form in forms
    }
    for end, media_type in list(ends.items()):
        ends.setdefault(end[end.rindex(".") :], media_type)
    return ends


@dataclass(frozen=True, eq=False, repr=False)
class Answer:
    """The answer of a model to one image or movie.

    Attributes
    ----------
    model, version
        The model that gave it; version None for a bundle folder.
    digest
        SHA-256 of the model's specification and weights.
    kind
        ``labels`` (objects, or classes per pixel), ``image`` (predicted channels), ``class`` (a class per cell) or
        ``lineage`` (tracks).
    objects
        Number of objects, cells or tracks; 0 for images.
    warnings
        What to know before using the answer, each with a ``code`` and a ``sentence``.
    """

    model: str
    version: str | None
    digest: str
    kind: TruthKind
    objects: int
    warnings: Warnings
    _ask: Callable[[str], bytes]
    _known: dict[str, bytes] = field(default_factory=dict)

    def encoded(self, media_type: str) -> bytes:
        """Return the answer in a format of :mod:`cytoray_serving.answers`, by its media type.

        Raises
        ------
        NotAcceptableError
            Answers of this kind have no such format.
        """
        if media_type not in self._known:
            self._known[media_type] = self._ask(media_type)
        return self._known[media_type]

    @property
    def labels(self) -> NDArray[np.unsignedinteger[Any]]:
        """The label image: (Y, X) or (Z, Y, X) unsigned integers, 0 for background; (T, …) of tracks for a lineage.

        Raises
        ------
        RequestError
            The answer has no labels.
        """
        if self.kind == "labels":
            return _tiff(self.encoded("image/tiff"))
        if self.kind == "lineage":
            with zipfile.ZipFile(io.BytesIO(self.encoded("application/zip"))) as archive:
                names = sorted(name for name in archive.namelist() if name.endswith(".tif"))
                return np.stack([_tiff(archive.read(name)) for name in names])
        raise self._lacks("labels")

    @property
    def image(self) -> NDArray[np.float32]:
        """The predicted image: (C, Y, X) or (C, Z, Y, X) float32, in the units of the training targets.

        Raises
        ------
        RequestError
            The answer is not an image.
        """
        if self.kind != "image":
            raise self._lacks("image")
        from cytoray_analysis.images import AXES, read_image

        found = read_image(self.encoded("image/tiff"), name="the answer")
        axes = "".join(axis for axis in AXES if axis in found.axes or axis == "C")
        pixels: NDArray[np.float32] = np.moveaxis(found.select(axes).read(), axes.index("C"), 0)
        return pixels

    def table(self) -> pandas.DataFrame:
        """Return one row for each object, cell or track; for images one row for each channel."""
        import pandas
        import pyarrow

        if self.kind == "image":
            return pandas.DataFrame(json.loads(self.encoded("application/json"))["channels"])
        with pyarrow.ipc.open_stream(self.encoded(_TABLE)) as stream:
            rows: pandas.DataFrame = stream.read_all().to_pandas()
        return rows

    def geojson(self) -> dict[str, Any]:
        """Return the outlines of the objects as a GeoJSON feature collection for QuPath.

        Raises
        ------
        RequestError
            The answer has no labels. Labels of several planes or frames raise NotAcceptableError.
        """
        if self.kind != "labels":
            raise self._lacks("outlines")
        collection: dict[str, Any] = json.loads(self.encoded("application/geo+json"))
        return collection

    def tracks(self) -> NDArray[np.float64]:
        """Return one row for each object of each frame: track, frame and centroid, for napari's ``add_tracks``.

        Returns
        -------
        ndarray
            (rows, 4) or, with Z, (rows, 5): track, t, (z,) y, x. Parents of tracks are in :meth:`table`.

        Raises
        ------
        RequestError
            The answer is not a lineage.
        """
        if self.kind != "lineage":
            raise self._lacks("tracks")
        text = io.BytesIO(self.encoded("text/csv"))
        return np.loadtxt(text, delimiter=",", skiprows=1, ndmin=2)[:, :-1]

    def save(self, path: str | Path) -> Path:
        """Write the answer to a file in the format of its suffix, see :func:`suffixes_of`.

        Examples
        --------
        >>> answer.save("cells.tif"), answer.save("cells.csv"), answer.save("cells.geojson")  # doctest: +SKIP

        Raises
        ------
        RequestError
            Answers of this kind cannot be written to such files.
        """
        path = Path(path)
        known = suffixes_of(self.kind)
        suffixes = sorted(known, key=len, reverse=True)
        name = path.name.lower()
        name = name.removesuffix("f") if name.endswith(".tiff") else name
        chosen = next((suffix for suffix in suffixes if name.endswith(suffix)), None)
        if chosen is None:
            raise RequestError(
                f"expected a file name that ends in {', '.join(sorted(suffixes))}, got {path.name}",
                field="path",
                hint=f"these are the formats of answers of the kind {self.kind!r}",
            )
        return write_whole(path, self.encoded(known[chosen]))

    def picture(self) -> bytes:
        """Return a PNG to look at: outlines or boxes over the image, the predicted image, or tracks and lineage."""
        if self.kind != "lineage":
            return self.encoded("image/png")
        from cytoray_analysis.track_pictures import lineage_picture

        lineage = self._lineage()
        return lineage_picture(np.zeros((*lineage.shape[-2:], 3), np.uint8), lineage)

    def __repr__(self) -> str:
        name = self.model if self.version is None else f"{self.model}/{self.version}"
        noun = answer_kind(self.kind).noun
        counted = self.kind if noun is None else f"{self.objects} {noun}{'' if self.objects == 1 else 's'}"
        warned = f", warnings: {', '.join(one.code for one in self.warnings)}" if self.warnings else ""
        return f"<Answer of {name}: {counted}{warned}>"

    def _repr_png_(self) -> bytes:
        return self.picture()

    def _lineage(self) -> Lineage:
        from cytoray_analysis.tracking.ctc import read_lineage

        with (
            tempfile.TemporaryDirectory(prefix="cytoray-") as folder,
            zipfile.ZipFile(io.BytesIO(self.encoded("application/zip"))) as archive,
        ):
            archive.extractall(folder)
            return read_lineage(folder)

    def _lacks(self, what: str) -> RequestError:
        has = {
            "labels": "labels, table() and geojson()",
            "image": "image and table()",
            "class": "table()",
            "lineage": "labels, tracks() and table()",
        }
        offered = has.get(self.kind, "table()")
        return RequestError(
            f"expected an answer with {what}, got one of the kind {self.kind!r}",
            hint=f"it has {offered}",
        )


def _tiff(body: bytes) -> NDArray[Any]:
    import tifffile

    return np.asarray(tifffile.imread(io.BytesIO(body)))
