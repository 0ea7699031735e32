"""The process that reads, stores and draws images, so that a gateway decodes none.

Its methods return errors instead of raising them: they are valid responses, not failures of the process.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

from cytoray_analysis.answer_warnings import Warnings
from cytoray_analysis.errors import CytorayError, ImageTooLargeError
from cytoray_analysis.images import Image, Limits, read_image
from cytoray_analysis.selection import Selection
from cytoray_services.storage.locate import locate
from cytoray_services.tokens.access import Caller
from cytoray_serving.messages import UPLOADED, Answer
from cytoray_serving.schema import ModelAnswered, WarningRow
from cytoray_serving.viewer.records import AskedAnswer, Pyramid, StoredAnswer, StoredImage
from cytoray_serving.viewer.store import ImageFolder, ImageStore, Source

if TYPE_CHECKING:
    from cytoray_services.settings import Settings
    from cytoray_serving.viewer.limits import ViewerConfig

T = TypeVar("T")
_DRAWN_AT_ONCE = 4
_OPEN = 64  # images whose metadata are in memory


@dataclass(frozen=True)
class Sent:
    """An image that a caller sends.

    Attributes
    ----------
    name
        Name of the file.
    body
        Its bytes.
    selection
        Which image of the file, and the meaning of its axes.
    uri
        Where the file is, if it was named by a URI; without secrets.
    source
        The location of an OME-Zarr, which is read in parts instead of as bytes.
    """

    name: str
    body: bytes
    selection: Selection
    uri: str | None = None
    source: Source | None = None


@dataclass(frozen=True)
class TileAsked:
    """A tile of an image, or of an answer about it.

    Attributes
    ----------
    level, column, row
        Which tile.
    t, z
        Which frame and plane; ignored if there is only one.
    c, low, high
        The channel and its contrast; None for the defaults.
    answer
        ID of the answer; None for the image itself.
    packed
        Whether the caller takes gzip.
    """

    level: int
    column: int
    row: int
    t: int = 0
    z: int = 0
    c: int | None = None
    low: float | None = None
    high: float | None = None
    answer: str | None = None
    packed: bool = False


@dataclass(frozen=True)
class Tile:
    """The bytes of a tile, and whether they are compressed with gzip."""

    body: bytes
    media_type: str
    packed: bool = False


class Viewing(Protocol):
    """What gateways call: :class:`Viewer`, or the handle of its deployment."""

    async def add(self, caller: Caller, sent: Sent) -> StoredImage | CytorayError:
        """Store an image."""
        ...

    async def tile(self, caller: Caller, image_id: str, asked: TileAsked) -> Tile | CytorayError:
        """Draw a tile."""
        ...

    async def keep(
        self, caller: Caller, image_id: str, asked: AskedAnswer, answer: Answer, seconds: float
    ) -> StoredAnswer | CytorayError:
        """Store an answer in the form of arrays, which took so many seconds."""
        ...


class Viewer:
    """Reads images, stores them, and draws tiles.

    Parameters
    ----------
    largest_image
        Maximum number of pixels of an image.
    """

    def __init__(self, settings: Settings, config: ViewerConfig, largest_image: int) -> None:
        logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # damage is returned as an error, not logged
        self._store = ImageStore(settings.home / "images", config)
        self._config = config
        self._levels: OrderedDict[str, tuple[Image, ...]] = OrderedDict()
        self._lock = threading.Lock()
        # One image is decoded at a time, so memory is bounded, and tiles do not wait for it.
        self._storing = ThreadPoolExecutor(1, thread_name_prefix="storing")
        self._drawing = ThreadPoolExecutor(_DRAWN_AT_ONCE, thread_name_prefix="drawing")
        self._limits = Limits(largest_image, decoded_bytes=config.image_megabytes * 2**20, frames=UPLOADED.frames)

    async def add(self, caller: Caller, sent: Sent) -> StoredImage | CytorayError:
        """Store an image, with its pyramid."""
        return await _answered(self._storing, lambda: self._add(caller, sent))

    async def tile(self, caller: Caller, image_id: str, asked: TileAsked) -> Tile | CytorayError:
        """Draw a tile of an image, or of an answer about it."""
        return await _answered(self._drawing, lambda: self._tile(caller, image_id, asked))

    async def keep(
        self, caller: Caller, image_id: str, asked: AskedAnswer, answer: Answer, seconds: float
    ) -> StoredAnswer | CytorayError:
        """Store an answer in the form of arrays, with its pyramid and its table of objects."""
        return await _answered(self._storing, lambda: self._keep(caller, image_id, asked, answer, seconds))

    def _add(self, caller: Caller, sent: Sent) -> StoredImage:
        from cytoray_serving.viewer.pyramid import pyramid_bytes, write_coarse_levels, write_pyramid

        if sent.source is None:
            image = read_image(sent.body, limits=self._limits, name=sent.name, selection=sent.selection)
            finer: tuple[Image, ...] = ()
            size = pyramid_bytes(image)
        else:
            image, *_ = finer = _levels(sent.source, sent.selection)
            size = pyramid_bytes(finer[-1], without_first=True)
        if size > self._config.image_megabytes * 2**20:
            raise ImageTooLargeError(
                f"{sent.name} takes {size / 2**20:.0f} MB with its levels, more than {self._config.image_megabytes} MB",
                field="body",
                hint="crop it, or store it as OME-Zarr in a location that the service may read",
            )
        now = datetime.now(UTC)
        with self._store.new(caller, size + len(sent.body)) as (image_id, folder):
            if sent.source is None:
                folder.upload.write_bytes(sent.body)
                pyramid = write_pyramid(image, folder.levels)
            else:
                folder.write_source(sent.source)
                pyramid = write_coarse_levels(finer, folder.levels)
            record = StoredImage(
                id=image_id,
                name=sent.name,
                owner=caller.name,
                uri=sent.uri,
                created=now,
                expires=folder.expires,
                bytes=size + len(sent.body),
                pixel_size={axis: (image.pixel_size or {}).get(axis) for axis in "ZYX"},
                warnings=_rows(image.warnings),
                selection=sent.selection,
                **dict(pyramid),
            )
            folder.write(record)
        return self._store.find(image_id, caller).record()

    def _tile(self, caller: Caller, image_id: str, asked: TileAsked) -> Tile:
        from cytoray_serving.viewer.pyramid import read_tile
        from cytoray_serving.viewer.tiles import LABELS, PNG, label_tile, picture_tile

        folder = self._store.find(image_id, caller)
        finer: tuple[Image, ...] = ()
        if asked.answer is None:
            pyramid, levels, finer = folder.pyramid(), folder.levels, self._opened(image_id, folder)
        else:
            answer = folder.answer(asked.answer)
            pyramid, levels = answer.pyramid(), answer.levels
        t, z = (0 if pyramid.axes[axis] == 1 else at for axis, at in (("T", asked.t), ("Z", asked.z)))
        pixels = read_tile(levels, pyramid, asked.level, asked.column, asked.row, t=t, z=z, finer=finer)
        if pyramid.channels:
            return Tile(picture_tile(pixels, pyramid, asked.c, asked.low, asked.high), PNG)
        labels = label_tile(pixels)
        return Tile(gzip.compress(labels, 1, mtime=0) if asked.packed else labels, LABELS, asked.packed)

    def _opened(self, image_id: str, folder: ImageFolder) -> tuple[Image, ...]:
        """Return the levels of an OME-Zarr, opened once; empty for an image whose bytes are stored."""
        with self._lock:
            found = self._levels.get(image_id)
        if found is None:  # opened without the lock: a slow store must not stop the tiles of others
            source = folder.source()
            found = () if source is None else _levels(source, folder.record().selection)
        with self._lock:
            self._levels[image_id] = found
            self._levels.move_to_end(image_id)
            if len(self._levels) > _OPEN:
                self._levels.popitem(last=False)
        return found

    def _keep(self, caller: Caller, image_id: str, asked: AskedAnswer, answer: Answer, seconds: float) -> StoredAnswer:
        from cytoray_serving.answers.arrays import read_arrays
        from cytoray_serving.viewer.answer_contents import contents_of
        from cytoray_serving.viewer.pyramid import TILE, pyramid_bytes, write_pyramid

        folder = self._store.find(image_id, caller)
        found = read_arrays(answer.body)
        contents = contents_of(found, asked.selection)
        self._store.admit(caller, 0 if contents.image is None else pyramid_bytes(contents.image))
        with folder.new_answer() as (answer_id, draft):
            pyramid = Pyramid(axes={}, channels=[], rgb=False, levels=[], tile=TILE)
            if contents.image is not None:
                pyramid = write_pyramid(contents.image, draft.levels, labels=contents.labels)
            record = StoredAnswer(
                id=answer_id,
                image=image_id,
                kind=answer.kind,
                model=ModelAnswered(name=answer.name, version=answer.version, digest=answer.digest),
                question=asked.model_dump(mode="json", exclude_defaults=True),
                created=datetime.now(UTC),
                steps=list(answer.steps),
                objects=answer.objects,
                seconds=seconds,
                warnings=_rows(answer.warnings),
                classes=list(found.classes),
                columns=contents.table.columns,
                **dict(pyramid),
            )
            draft.write(record, contents.table)
        return record


def _levels(source: Source, selection: Selection) -> tuple[Image, ...]:
    """Open the levels of an OME-Zarr that have all frames and channels of the first one."""
    first, *rest = locate(source.uri, source.allowed, field="uri").open_levels(Limits(), selection)
    return (first, *(one for one in rest if all(one.size(axis) == first.size(axis) for axis in "TC")))


def _rows(warnings: Warnings) -> list[WarningRow]:
    return [WarningRow(code=one.code, sentence=one.sentence) for one in warnings]


async def _answered(threads: ThreadPoolExecutor, work: Callable[[], T]) -> T | CytorayError:
    try:
        return await asyncio.get_running_loop().run_in_executor(threads, work)
    except CytorayError as error:
        return error


def raised(outcome: T | CytorayError) -> T:
    """Return what a :class:`Viewer` returned, and raise an error that it returned."""
    if isinstance(outcome, CytorayError):
        raise outcome
    return outcome
