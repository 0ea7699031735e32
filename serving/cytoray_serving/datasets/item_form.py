"""The form that adds an item: an image, and perhaps its masks, group and objects."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fastapi import Request
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from cytoray_analysis.errors import PlatformError, RequestError
from cytoray_services.corrections.records import GivenObject

_LARGEST_TEXT = 2**24  # bytes of the objects, as JSON
_OBJECTS: TypeAdapter[tuple[GivenObject, ...]] = TypeAdapter(tuple[GivenObject, ...])
_BINARY = {"type": "string", "format": "binary"}
REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {
                    "image": {**_BINARY, "description": "The image file: TIFF, OME-TIFF, PNG or JPEG."},
                    "masks": {
                        **_BINARY,
                        "description": "A label image (TIFF or PNG) of the same size; without it there is no object.",
                    },
                    "group": {
                        "type": "string",
                        "maxLength": 128,
                        "description": "What stays on one side of the split, such as the recording of a frame.",
                    },
                    "objects": {
                        "type": "string",
                        "description": "JSON: confidence and class of objects of the masks.",
                        "example": '[{"label": 1, "confidence": 0.9, "class": "mitotic"}]',
                    },
                },
            }
        }
    },
}


@dataclass(frozen=True)
class ItemForm:
    """A form, with its files on disk.

    Attributes
    ----------
    name
        The name of the image file, for display.
    """

    name: str
    image: Path
    masks: Path | None
    group: str | None
    objects: tuple[GivenObject, ...]


@asynccontextmanager
async def read_item_form(request: Request) -> AsyncIterator[ItemForm]:
    """Parse the form of a request; its files exist until the context ends.

    Raises
    ------
    RequestError
        It is no form, is malformed, or lacks an image.
    PlatformError
        There is no room for its files.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise RequestError(
            f"expected a form (multipart/form-data), got the content type {kind[:80]!r}",
            field="Content-Type",
            hint="curl -F image=@cells.tif -F masks=@masks.tif",
        )
    parser = MultiPartParser(request.headers, request.stream(), max_files=2, max_fields=8, max_part_size=_LARGEST_TEXT)
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        reason = getattr(error, "message", "it has no boundary")
        raise RequestError(f"the form in the body is malformed: {reason}", field="body") from error
    except OSError as error:
        raise _no_room(error) from error
    try:
        with tempfile.TemporaryDirectory(prefix="cytoray-item-") as folder:
            yield await _saved(form, Path(folder))
    finally:
        await form.close()


async def _saved(form: FormData, folder: Path) -> ItemForm:
    unknown = [name for name, _ in form.multi_items() if name not in ("image", "masks", "group", "objects")]
    twice = [name for name in form if len(form.getlist(name)) > 1]
    image, masks = form.get("image"), form.get("masks")
    if unknown or twice or not isinstance(image, UploadFile) or isinstance(masks, str):
        names = ", ".join(name for name, _ in form.multi_items())[:200] or "nothing"
        raise RequestError(
            f"expected the file image, and perhaps the file masks and the texts group and objects, each once, got "
            f"{names}",
            field=((unknown or twice)[0] if unknown or twice else "image")[:64],
            hint="curl -F image=@cells.tif -F masks=@masks.tif",
        )
    group, objects = form.get("group"), form.get("objects")
    if isinstance(group, UploadFile) or isinstance(objects, UploadFile):
        raise RequestError("expected group and objects as texts, got a file", field="group")
    try:
        given = _OBJECTS.validate_json(objects) if objects else ()
    except ValidationError as error:
        first = error.errors()[0]
        raise RequestError(
            f"expected objects as a JSON list: {first['msg']}",
            field=".".join(map(str, ("objects", *first["loc"]))),
            hint='such as [{"label": 1, "confidence": 0.9}]',
        ) from error
    name = PurePosixPath((image.filename or "image").replace("\\", "/")).name
    name = "".join(letter for letter in name if letter.isprintable())[:128] or "image"
    saved = [None if file is None else folder / part for part, file in (("image", image), ("masks", masks))]
    try:
        for path, file in zip(saved, (image, masks), strict=True):
            if path is not None and file is not None:
                await asyncio.to_thread(_copy, file, path)
    except OSError as error:
        raise _no_room(error) from error
    assert saved[0] is not None  # noqa: S101 - it was refused above
    return ItemForm(name, saved[0], saved[1], group, given)


def _copy(file: UploadFile, path: Path) -> None:
    with path.open("wb") as target:
        shutil.copyfileobj(file.file, target)


def _no_room(error: OSError) -> PlatformError:
    return PlatformError(f"the files of the form cannot be saved: {error.strerror}", hint="free some disk space")
