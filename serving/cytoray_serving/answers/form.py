"""A form of an answer: its name, its media type, and how a prediction is encoded."""

from __future__ import annotations

import csv
import io
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from cytoray_analysis.errors import NotAcceptableError
from cytoray_analysis.images import Image
from cytoray_serving.schema import ChannelChosen, ModelAnswered, WarningRow

if TYPE_CHECKING:
    from cytoray_analysis.inference import Prediction


def model_answered(prediction: Prediction) -> ModelAnswered:
    """Return the model that gave an answer, for answers in JSON."""
    identity = prediction.model
    return ModelAnswered(name=identity.name, version=identity.version, digest=identity.digest)


def warning_rows(prediction: Prediction) -> list[WarningRow]:
    """Return the warnings of an answer, for answers in JSON."""
    return [WarningRow(code=one.code, sentence=one.sentence) for one in prediction.warnings]


def require_one(prediction: Prediction, what: str) -> None:
    """Raise :class:`NotAcceptableError` if the answer has several planes or frames but `what` shows one."""
    if prediction.stacked:
        raise NotAcceptableError(
            f"expected one plane for {what}, got an answer with the axes {prediction.axes}",
            field="Accept",
            hint="choose one plane or frame by its number, or request another format",
        )


def channels_chosen(image: Image) -> list[ChannelChosen]:
    """Return the chosen channels of an image, each with its number; empty if none were chosen."""
    named = zip(image.channels, image.numbers, strict=False)
    return [ChannelChosen(name=name, number=number) for name, number in named]


@dataclass(frozen=True)
class Form:
    """One form of an answer.

    Attributes
    ----------
    name
        The value of ``cytoray predict --format``.
    media_type
        The value of ``Accept`` and ``Content-Type``, with parameters.
    suffix
        Suffix of a file or folder in this form.
    encode
        Encodes an answer as bytes.
    write_folder
        Writes the answer into an existing folder, of which `encode` returns a ZIP archive; None if the form is one
        file.
    schema
        Schema of the JSON; None for other forms.
    """

    name: str
    media_type: str
    suffix: str
    encode: Callable[[Prediction], bytes]
    write_folder: Callable[[Prediction, Path], None] | None = None
    schema: type[BaseModel] | None = None


def folder_form(name: str, media_type: str, suffix: str, write_folder: Callable[[Prediction, Path], None]) -> Form:
    """Return a form that is a folder, sent as a ZIP archive."""

    def encode(prediction: Prediction) -> bytes:
        with tempfile.TemporaryDirectory(prefix="cytoray-") as temporary:
            folder = Path(temporary) / name
            folder.mkdir()
            write_folder(prediction, folder)
            return _zipped(folder)

    return Form(name, media_type, suffix, encode, write_folder)


def _zipped(folder: Path) -> bytes:
    buffer = io.BytesIO()
    # Stored, not deflated: the files in these folders are compressed already.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                # A fixed date, so that equal answers are equal bytes.
                member = zipfile.ZipInfo(path.relative_to(folder).as_posix())
                member.external_attr = 0o644 << 16
                archive.writestr(member, path.read_bytes())
    return buffer.getvalue()


ZARR, ZARR_SUFFIX = "zarr", ".ome.zarr"  # a form that is written block by block, and never sent
ARROW = "application/vnd.apache.arrow.stream"  # as registered with IANA


def csv_bytes(columns: Mapping[str, Sequence[Any] | NDArray[Any]]) -> bytes:
    """Encode columns of one length as CSV in UTF-8 with a line of names; real numbers keep their precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    lists = [column.tolist() if isinstance(column, np.ndarray) else column for column in columns.values()]
    writer.writerows(zip(*lists, strict=True))
    return text.getvalue().encode()


def arrow_bytes(columns: Mapping[str, Sequence[Any] | NDArray[Any]]) -> bytes:
    """Encode columns of one length as an Apache Arrow stream, with their types."""
    import pyarrow

    table = pyarrow.table({name: pyarrow.array(column) for name, column in columns.items()})
    buffer = io.BytesIO()
    with pyarrow.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def known(confidence: NDArray[np.floating[Any]] | None) -> NDArray[np.float32]:
    """Return confidences as an array, which is empty if they are unknown."""
    return np.zeros(0, np.float32) if confidence is None else confidence.astype(np.float32, copy=False)


def require_plane(shape: Sequence[int], what: str) -> None:
    """Raise :class:`NotAcceptableError` if an answer with these spatial axes is not flat, as `what` requires."""
    if len(shape) != 2:
        raise NotAcceptableError(
            f"expected one plane for {what}, got an answer of the shape {tuple(shape)}",
            field="Accept",
            hint="request image/tiff",
        )
