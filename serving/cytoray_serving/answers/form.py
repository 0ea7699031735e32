"""A form of an answer: its name, its media type, and how a prediction becomes its bytes."""

from __future__ import annotations

import csv
import io
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import NotAcceptableError
from cytoray_analysis.images import Image
from cytoray_analysis.predictor import Prediction, Predictor
from cytoray_serving.schema import ChannelChosen, ModelAnswered, WarningRow


@dataclass(frozen=True, eq=False)
class Answered:
    """A prediction and what it is about.

    Attributes
    ----------
    prediction
        The answer of the model.
    image
        The image or movie that was sent.
    predictor
        What gave the answer.
    objects
        What it was told of the objects beside the image.
    """

    prediction: Prediction
    image: Image
    predictor: Predictor
    objects: Any = None

    @property
    def model(self) -> ModelAnswered:
        """The model, as the JSON answers name it."""
        identity = self.prediction.model
        return ModelAnswered(name=identity.name, version=identity.version, digest=identity.digest)

    @property
    def warnings(self) -> list[WarningRow]:
        """What is to be known of the answer, as the JSON answers have it."""
        return [WarningRow(code=one.code, sentence=one.sentence) for one in self.prediction.warnings]

    @property
    def channels(self) -> list[ChannelChosen]:
        """The channels of the image that were chosen; none where nothing was chosen."""
        return channels_chosen(self.image)

    @property
    def axes(self) -> str:
        """Axes of an answer in pixels and of boxes: those of the model, and of planes and frames answered alone."""
        return self.prediction.axes or self.predictor.bundle.spec.input.spatial_axes

    @property
    def stacked(self) -> str:
        """The axes along which every entry was answered by itself, such as Z; empty for none."""
        return self.axes[: -len(self.predictor.bundle.spec.input.spatial_axes)]

    def require_one(self, what: str) -> None:
        """Raise :class:`NotAcceptableError` where several planes or frames were answered, and `what` shows one."""
        if self.stacked:
            raise NotAcceptableError(
                f"{what} shows one plane, the answer has the axes {self.axes}",
                field="Accept",
                hint="choose one plane or frame by its number, or ask for another form",
            )


def channels_chosen(image: Image) -> list[ChannelChosen]:
    """Return the channels of an image that were chosen, each with its number; none where nothing was chosen."""
    named = zip(image.channels, image.numbers, strict=False)
    return [ChannelChosen(name=name, number=number) for name, number in named]


@dataclass(frozen=True)
class Form:
    """One form of an answer.

    Attributes
    ----------
    name
        As ``cytoray predict --format`` has it.
    media_type
        As ``Accept`` and ``Content-Type`` have it, parameters included.
    suffix
        Of a file, or folder, in this form.
    encode
        Turns an answer into bytes.
    write_folder
        Writes the answer into a folder that is there, of which `encode` gives a ZIP archive; None where the form is
        one file.
    """

    name: str
    media_type: str
    suffix: str
    encode: Callable[[Answered], bytes]
    write_folder: Callable[[Answered, Path], None] | None = None


def folder_form(name: str, media_type: str, suffix: str, write_folder: Callable[[Answered, Path], None]) -> Form:
    """Return a form that is a folder, sent as a ZIP archive."""

    def encode(answered: Answered) -> bytes:
        with tempfile.TemporaryDirectory(prefix="cytoray-") as temporary:
            folder = Path(temporary) / name
            folder.mkdir()
            write_folder(answered, folder)
            return _zipped(folder)

    return Form(name, media_type, suffix, encode, write_folder)


def _zipped(folder: Path) -> bytes:
    buffer = io.BytesIO()
    # Stored, not deflated: what lies in these folders is compressed already.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                # A fixed date, so that equal answers are equal bytes.
                member = zipfile.ZipInfo(path.relative_to(folder).as_posix())
                member.external_attr = 0o644 << 16
                archive.writestr(member, path.read_bytes())
    return buffer.getvalue()


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
    """Encode columns of one length as an Apache Arrow stream, with the types that they have."""
    import pyarrow

    table = pyarrow.table({name: pyarrow.array(column) for name, column in columns.items()})
    buffer = io.BytesIO()
    with pyarrow.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def require_plane(shape: Sequence[int], what: str) -> None:
    """Raise :class:`NotAcceptableError` where an answer with these spatial axes is not flat, as `what` needs it."""
    if len(shape) != 2:
        raise NotAcceptableError(
            f"{what} holds one plane, the answer has the shape {tuple(shape)}",
            field="Accept",
            hint="ask for image/tiff",
        )
