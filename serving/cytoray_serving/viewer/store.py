"""Stored images on disk: one folder per image with its full state, for all gateways and viewers of a service.

====================  ============================================================================================
``image.json``        the image; written once
``upload``            the bytes that were sent, or
``source.json``       the location of an OME-Zarr, which is not copied
``levels/``           its pyramid; of an OME-Zarr only the levels that it lacks
``used``              its time of change is the last use
``answers/ID/``       an answer: ``answer.json``, ``objects.json``, and ``levels/`` of labels or of a predicted image
====================  ============================================================================================

A folder gets its name when it is complete, so a killed process leaves only a draft, which is removed with the expired
images.
"""

from __future__ import annotations

import logging
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from cytoray_analysis.errors import CytorayError, MissingFileError, OverloadedError, PlatformError
from cytoray_analysis.files import folder_bytes, replace_whole, write_whole
from cytoray_services.locks import locked
from cytoray_services.records import reading
from cytoray_services.storage.allowed import Allowed
from cytoray_services.tokens.access import Caller
from cytoray_serving.viewer.limits import ViewerConfig
from cytoray_serving.viewer.records import ObjectsTable, Pyramid, StoredAnswer, StoredImage


class Source(BaseModel):
    """The location of an OME-Zarr.

    Attributes
    ----------
    uri
        As the caller named it.
    allowed
        The locations that the caller may name.
    """

    model_config = ConfigDict(frozen=True)

    uri: str
    allowed: Allowed


Record = TypeVar("Record", StoredImage, StoredAnswer, Source)

log = logging.getLogger(__name__)

_IMAGE, _ANSWER = re.compile(r"img-[0-9a-f]{24}"), re.compile(r"ans-[0-9a-f]{16}")
_DRAFT_SECONDS = 3600.0
_TOUCH_SECONDS = 60.0


class AnswerFolder:
    """The files of an answer."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def levels(self) -> Path:
        """Folder of the pyramid of its labels, or of the predicted image."""
        return self.path / "levels"

    def record(self) -> StoredAnswer:
        """Return the answer."""
        return _read(self.path / "answer.json", StoredAnswer, "the description of an answer")

    def pyramid(self) -> Pyramid:
        """Return the levels of its labels or of its predicted image.

        Raises
        ------
        MissingFileError
            It has neither: its objects are boxes.
        """
        record = self.record()
        if not record.levels:
            raise MissingFileError("this answer has no tiles: its objects are boxes", field="answer")
        return record

    def objects(self) -> bytes:
        """Return the JSON of :class:`~cytoray_serving.viewer.records.ObjectsTable`."""
        return (self.path / "objects.json").read_bytes()

    def remove(self) -> None:
        """Remove the answer."""
        _remove(self.path)

    def write(self, record: StoredAnswer, table: ObjectsTable) -> None:
        """Write the records; the pyramid is written before."""
        write_whole(self.path / "objects.json", table.model_dump_json(), private=True, durable=False)
        write_whole(self.path / "answer.json", record.model_dump_json(), private=True, durable=False)


class ImageFolder:
    """The files of a stored image."""

    def __init__(self, path: Path, keep: timedelta) -> None:
        self.path = path
        self._keep = keep

    @property
    def upload(self) -> Path:
        """The bytes that were sent."""
        return self.path / "upload"

    @property
    def levels(self) -> Path:
        """Folder of its pyramid."""
        return self.path / "levels"

    @property
    def expires(self) -> datetime:
        """When it is removed."""
        return datetime.fromtimestamp((self.path / "used").stat().st_mtime, UTC) + self._keep

    def record(self) -> StoredImage:
        """Return the image with its present size and time of removal."""
        found = _read(self.path / "image.json", StoredImage, "the description of an image")
        return found.model_copy(update={"expires": self.expires, "bytes": folder_bytes(self.path)})

    def source(self) -> Source | None:
        """Return the location of the image; None if its bytes are stored here."""
        path = self.path / "source.json"
        return _read(path, Source, "the location of an image") if path.exists() else None

    def write_source(self, source: Source) -> None:
        """Write the location of the image; only the user of the service may read it."""
        write_whole(self.path / "source.json", source.model_dump_json(), private=True, durable=False)

    def owner(self) -> str:
        """Return the name of its owner."""
        return _read(self.path / "image.json", StoredImage, "the description of an image").owner

    def pyramid(self) -> Pyramid:
        """Return the levels of the image."""
        return _read(self.path / "image.json", StoredImage, "the description of an image")

    def write(self, record: StoredImage) -> None:
        """Write the record; the pyramid is written before."""
        write_whole(self.path / "image.json", record.model_dump_json(), private=True, durable=False)

    def use(self) -> None:
        """Postpone its removal."""
        used = self.path / "used"
        if time.time() - used.stat().st_mtime > _TOUCH_SECONDS:
            used.touch()

    def answers(self) -> list[AnswerFolder]:
        """Return its answers, newest first."""
        found = [AnswerFolder(path) for path in (self.path / "answers").glob("ans-*") if _ANSWER.fullmatch(path.name)]
        return sorted(found, key=lambda one: one.record().created, reverse=True)

    def answer(self, answer_id: str) -> AnswerFolder:
        """Return one answer.

        Raises
        ------
        MissingFileError
            There is no such answer.
        """
        path = self.path / "answers" / answer_id
        if not _ANSWER.fullmatch(answer_id) or not path.is_dir():
            raise MissingFileError(
                f"there is no answer {answer_id[:64]!r} about this image", field="answer", hint="ask again"
            )
        return AnswerFolder(path)

    @contextmanager
    def new_answer(self) -> Iterator[tuple[str, AnswerFolder]]:
        """Yield the ID and the folder of a new answer, which becomes visible on success."""
        answer_id = f"ans-{secrets.token_hex(8)}"
        with _draft(self.path / "answers", answer_id, admit=self.owner) as draft:
            yield answer_id, AnswerFolder(draft)


class ImageStore:
    """All stored images of a service, as folders of one folder."""

    def __init__(self, folder: Path, config: ViewerConfig) -> None:
        self.folder = folder
        self._config = config
        self._keep = timedelta(hours=config.keep_hours)

    def find(self, image_id: str, caller: Caller) -> ImageFolder:
        """Return the folder of an image, and note its use.

        Raises
        ------
        MissingFileError
            There is none, it has expired, or it belongs to another caller: the error is the same.
        """
        folder = ImageFolder(self.folder / image_id, self._keep)
        with suppress(FileNotFoundError):
            if _IMAGE.fullmatch(image_id) and (caller.administers or folder.owner() == caller.name):
                folder.use()
                return folder
        raise MissingFileError(
            f"there is no image {image_id[:64]!r}: it was removed, or it was not used for "
            f"{self._config.keep_hours:g} hours",
            field="image",
            hint="send the image again: POST /images",
        )

    def of(self, caller: Caller) -> list[StoredImage]:
        """Return the images of a caller, newest first; a damaged one is left out, with a line in the log."""
        found = []
        for folder in self._folders():
            try:
                record = folder.record()
            except FileNotFoundError:  # removed in between
                continue
            except PlatformError as error:
                log.warning("%s", error.message)
                continue
            if record.owner == caller.name:
                found.append(record)
        return sorted(found, key=lambda one: (one.created, one.id), reverse=True)

    @contextmanager
    def new(self, caller: Caller, size: int) -> Iterator[tuple[str, ImageFolder]]:
        """Yield the ID and the folder of a new image, which becomes visible on success.

        Parameters
        ----------
        size
            Bytes that it will have.

        Raises
        ------
        OverloadedError
            There is no room for it.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        image_id = f"img-{secrets.token_hex(12)}"
        with _draft(self.folder, image_id, admit=lambda: self._admit(caller, size)) as draft:
            (draft / "used").touch()
            yield image_id, ImageFolder(draft, self._keep)

    def admit(self, caller: Caller, size: int) -> None:
        """Raise :class:`OverloadedError` if the images of the caller, or all, would take too much disk space."""
        with locked(self.folder / "lock"):
            self._admit(caller, size)

    def remove(self, folder: ImageFolder) -> None:
        """Remove an image with its answers."""
        _remove(folder.path)

    def remove_expired(self) -> int:
        """Remove what was not used for long, and the drafts of killed processes; return the number of images."""
        now, count = datetime.now(UTC), 0
        for folder in self._folders():
            with suppress(FileNotFoundError):
                if not (folder.path / "used").exists():  # an answer was stored while its image was removed
                    self.remove(folder)
                elif folder.expires < now:
                    self.remove(folder)
                    count += 1
        for draft in self.folder.glob(".*img-*"):
            with suppress(FileNotFoundError):
                if time.time() - draft.stat().st_mtime > _DRAFT_SECONDS:
                    shutil.rmtree(draft, ignore_errors=True)
        return count

    def _folders(self) -> list[ImageFolder]:
        return [ImageFolder(path, self._keep) for path in self.folder.glob("img-*") if _IMAGE.fullmatch(path.name)]

    def _admit(self, caller: Caller, size: int) -> None:
        own = size + sum(one.bytes for one in self.of(caller))
        everything = size + folder_bytes(self.folder)
        for total, most, whose in (
            (own, self._config.caller_megabytes, "your images"),
            (everything, self._config.megabytes, "all images"),
        ):
            if total > most * 2**20:
                raise OverloadedError(
                    f"expected {whose} to take at most {most} MB of disk space, got {total / 2**20:.0f} MB with this "
                    "one",
                    hint="remove images that you do not need: DELETE /images/ID",
                )


def _read(path: Path, model: type[Record], what: str) -> Record:
    content = path.read_bytes()
    with reading(path, what):
        return model.model_validate_json(content)


@contextmanager
def _draft(parent: Path, name: str, admit: Callable[[], object] = lambda: None) -> Iterator[Path]:
    """Yield a new folder that gets its name on success, and is removed on failure.

    Raises
    ------
    PlatformError
        It cannot be written, such as on a full disk.
    """
    draft = parent / f".{name}"
    try:
        with locked(parent / "lock"):
            admit()
            draft.mkdir(parents=True, mode=0o700)
        yield draft
        replace_whole(draft, parent / name, durable=False)
    except BaseException as error:
        shutil.rmtree(draft, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, CytorayError):
            raise PlatformError(
                f"the image cannot be stored: {error.strerror}", hint="tell the operator: the disk may be full"
            ) from error
        raise


def _remove(path: Path) -> None:
    gone = path.with_name(f".gone-{path.name}")
    with suppress(FileNotFoundError):
        path.rename(gone)  # from now on it does not exist, even if the rest is interrupted
        shutil.rmtree(gone, ignore_errors=True)
