"""Between stored images and data sets: an image with an answer becomes an item, an item is shown as an image."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cytoray_analysis.errors import DatasetNotFoundError, RequestError
from cytoray_analysis.selection import EVERYTHING
from cytoray_services.corrections.dataset_folder import DatasetFolder
from cytoray_services.corrections.item import ItemFolder
from cytoray_services.corrections.records import GivenObject
from cytoray_services.tokens.access import Caller
from cytoray_serving.viewer.pyramid import first_level
from cytoray_serving.viewer.store import AnswerFolder, ImageFolder


class StoredItem(BaseModel):
    """A stored image to add to a data set, perhaps with an answer as its first labels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str = Field(max_length=64, description="ID of a stored image.")
    answer: str | None = Field(default=None, max_length=64, description="ID of an answer about it, with labels.")
    group: str | None = Field(default=None, max_length=128, description="What stays on one side of the split.")


def add_stored(
    dataset: DatasetFolder, image: ImageFolder, answer: AnswerFolder | None, caller: Caller, group: str | None
) -> ItemFolder:
    """Copy a stored image into a data set, with the labels, confidences and classes of an answer.

    Raises
    ------
    RequestError
        The image is not stored as a file, is a part of a file, or the answer has no labels.
    CytorayError
        See :meth:`cytoray_services.corrections.dataset_folder.DatasetFolder.add_item`.
    """
    record = image.record()
    if not image.upload.exists() or record.selection != EVERYTHING:
        raise RequestError(
            f"expected an image that was sent as a file of its own, got {record.name}, "
            + ("which is read where it is" if image.source() else "a part of a file"),
            field="image",
            hint="send the part to be corrected as a TIFF file",
        )
    if answer is None:
        return dataset.add_item(record.name, image.upload, caller=caller, group=group)
    found = answer.record()
    if found.kind != "labels":
        raise RequestError(
            f"expected an answer with labels of objects, got one of the kind {found.kind}", field="answer"
        )
    with tempfile.TemporaryDirectory(prefix="cytoray-item-") as folder:
        labels = Path(folder) / "labels.tif"
        _write_labels(labels, answer)
        return dataset.add_item(
            record.name,
            image.upload,
            labels,
            _objects(answer),
            caller=caller,
            model=found.model.model_dump(mode="json"),
            group=group,
        )


def image_address(name: str, item: str) -> str:
    """Return the address by which the image of an item is found among stored images."""
    return f"/datasets/{name}/items/{item}"


def image_bytes(path: Path, item: str) -> bytes:
    """Return the bytes of the image of an item.

    Raises
    ------
    DatasetNotFoundError
        The data set was removed.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"there is no item {item[:64]!r}", field="item") from error


def _write_labels(path: Path, answer: AnswerFolder) -> None:
    import tifffile

    stack = first_level(answer.levels)[:, 0]
    axes = "".join(axis for axis, length in zip("TZYX", stack.shape, strict=True) if length > 1 or axis in "YX")
    shape = tuple(length for axis, length in zip("TZYX", stack.shape, strict=True) if axis in axes)
    tifffile.imwrite(path, stack.reshape(shape), photometric="minisblack", metadata={"axes": axes})


def _objects(answer: AnswerFolder) -> tuple[GivenObject, ...]:
    table = json.loads(answer.objects())
    if "confidence" not in table["columns"]:
        return ()
    sure = table["columns"].index("confidence")
    confidences = ((row[0], row[sure]) for row in table["rows"] if row[sure] is not None)
    return tuple(GivenObject(label=label, confidence=float(np.clip(value, 0, 1))) for label, value in confidences)
