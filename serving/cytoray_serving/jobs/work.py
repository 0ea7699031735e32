"""The worker of a job, which processes one image, or one block of a large image, at a time.

A worker writes an answer in one step, and always the same bytes for the same image: one image per prediction, a fixed
number of threads, no times in the answer. So an item that is processed twice, after the loss of a worker, has one
answer.
"""

from __future__ import annotations

import logging
import math
import resource
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from cytoray_analysis.answer_warnings import Warnings
from cytoray_analysis.bundle import Bundle
from cytoray_analysis.errors import BundleError, CytorayError, PlatformError, RequestError
from cytoray_analysis.images import Image, Limits, read_image
from cytoray_analysis.inference.blocks import Blocks
from cytoray_analysis.predictor import Prediction, Predictor
from cytoray_analysis.selection import Selection
from cytoray_analysis.tracking.ctc import read_masks, read_movie
from cytoray_services.http.errors import ErrorBody
from cytoray_services.registry import ModelVersion, load_bundle, predictor_of
from cytoray_services.settings import Settings
from cytoray_services.storage.locate import locate
from cytoray_services.storage.location import StorageLocation
from cytoray_serving.answers import ZARR, form_named, require_zarr
from cytoray_serving.inputs import cells_of_rows, in_model_axes, label_pixels
from cytoray_serving.jobs import large
from cytoray_serving.jobs.store import Item, Job, Record
from cytoray_serving.predict.box_table import read_boxes
from cytoray_serving.predict.path_matching import PathMatcher, path_of_uri
from cytoray_serving.replica.steps import run_steps

log = logging.getLogger(__name__)


class Task(BaseModel):
    """A task of a worker.

    Attributes
    ----------
    kind
        Process an ``item`` or one ``block`` of it, or ``number`` the objects of a block.
    block, core
        Index of the block, and the block size of the image.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["item", "block", "number"]
    item: Item
    block: int = 0
    core: tuple[int, ...] = ()


class Worker:
    """Processes one task after the other.

    Parameters
    ----------
    job
        The job.
    settings
        Location of the registry.
    models
        Whether the models are needed; numbering blocks needs none.
    """

    def __init__(self, job: Job, settings: Settings, *, models: bool = True) -> None:
        self.job = job
        self.predictors = [self._load(number, settings) for number in range(len(job.steps))] if models else []
        self._cut: tuple[int, Blocks] | None = None
        self._open = ExitStack()  # of the image whose blocks are being processed
        self._numbering: tuple[int, Any, Any] | None = None

    def work(self, task: Task) -> Record:
        """Do a task; an error becomes its record."""
        start = time.perf_counter()
        doing = {"item": self._item, "block": self._block, "number": self._number}[task.kind]
        try:
            record = doing(task)
        except CytorayError as error:
            record = self._failed(task, error, again=isinstance(error, PlatformError))
        except Exception as error:
            # A bug, or an image that a library does not expect: the other images continue.
            log.exception("%s failed", task.item.uri)
            unexpected = CytorayError(f"{type(error).__name__}: {error}", hint="see the log of the job")
            record = self._failed(task, unexpected, again=True)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return record.model_copy(update={"seconds": time.perf_counter() - start, "memory": peak})

    def settle(self) -> None:
        """Wait until all outputs are on disk, so that the journal may list them."""
        self._location(self.job.request.output, "output").settle()

    def _load(self, number: int, settings: Settings) -> Predictor:
        options = self.job.options
        bundle, version = load_step(self.job, number, settings)
        return predictor_of(
            bundle,
            version,
            device=options.device,
            precision=options.precision,
            memory_budget=options.memory_budget,
            threads=options.threads or 1,
        )

    def _item(self, task: Task) -> Record:
        item, last = task.item, self.predictors[-1]
        with ExitStack() as stack:
            image = self._image(item, stack)
            whole = len(self.predictors) == 1 and last.task.output.per == "pixel" and not self.job.request.each
            if whole and not last.fits(image):
                self._require_zarr(item)
                return large.cut(self.job, item, last.blocks(image)).model_copy(update={"warnings": image.warnings})
            selection = self._selection(item)
            objects, warnings = self._objects(item, image, stack)
            prediction = run_steps(self.predictors, image.warn(*warnings), objects, selection)
            # Times are in the records; in an answer they would make two answers to one image differ.
            prediction = replace(prediction, seconds={})
            written = self._write(item, prediction)
        return Record(
            kind="done",
            item=item.index,
            output=written.uri,
            objects=prediction.objects,
            megapixels=megapixels(image),
            warnings=prediction.warnings,
        )

    def _selection(self, item: Item) -> Selection:
        """Return the selection of the job with the series of the item."""
        selection = self.job.request.without("series")
        return selection if item.series is None else Selection(**selection.given(), series=item.series)

    def _image(self, item: Item, stack: ExitStack) -> Image:
        """Open the selected part of an image, a movie or a folder of frames, until the stack is closed."""
        source, selection = self._location(item.uri, "input"), self._selection(item)
        if source.is_zarr():
            image = source.open_image(Limits(), selection)
        else:
            path = stack.enter_context(source.local())
            image = (
                read_movie(path, selection, alone=True)
                if path.is_dir()
                else read_image(path, name=str(source), alone=True, selection=selection)
            )
        return in_model_axes(image, movie=self.job.movies)

    def _objects(self, item: Item, image: Image, stack: ExitStack) -> tuple[Any, Warnings]:
        """Return the given objects of an image, and their warnings."""
        expected = self.predictors[0].bundle.spec.input
        if item.masks is not None:
            source = self._location(item.masks, "masks")
            selection = self._selection(item)
            if source.is_folder() and not source.is_zarr():
                masks = read_masks(stack.enter_context(source.local()), alone=True)
            else:
                masks = source.open_image(Limits(), labels=True)
            return label_pixels(masks, expected, selection, image.axes), masks.warnings
        if self.job.request.boxes is None:
            return None, ()
        table = stack.enter_context(self._location(self.job.request.boxes, "boxes").local())
        image_path = path_of_uri(item.uri)
        rows = read_boxes(table).boxes_by(PathMatcher([image_path]), image_path, alone=item.alone)
        return cells_of_rows(rows, image, expected), ()

    def _write(self, item: Item, prediction: Prediction) -> StorageLocation:
        output = self._location(self.job.request.output, "output")
        if self.job.request.format == ZARR:
            target = output.joined(f"{item.name}.ome.zarr")
            with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
                path = Path(folder) / target.name
                require_zarr(prediction.kind)(path, prediction)
                large.write_zarr(target, path)
            return target
        form = form_named(self.job.request.format, prediction.kind)
        # A form that is a folder is written as the archive that callers get, in one step.
        suffix = form.suffix if form.write_folder is None else f"{form.suffix}.zip"
        target = output.joined(f"{item.name}{suffix}")
        target.write_bytes(form.encode(prediction))
        return target

    def _block(self, task: Task) -> Record:
        item, predictor = task.item, self.predictors[-1]
        if self._cut is None or self._cut[0] != item.index:
            self._open.close()
            self._cut = item.index, predictor.blocks(self._image(item, self._open), task.core)
        blocks = self._cut[1]
        large.answer_block(self.job, item, predictor, blocks, task.block)
        pixels = math.prod(part.stop - part.start for part in blocks.tiles[task.block].core)
        return Record(kind="block", item=item.index, block=task.block, megapixels=pixels / 1e6)

    def _number(self, task: Task) -> Record:
        item = task.item
        if self._numbering is None or self._numbering[0] != item.index:
            self._numbering = item.index, large.open_answer(self.job, item), large.known_objects(self.job, item)
        _, array, objects = self._numbering
        large.number_block(self.job, item, array, objects, task.block)
        return Record(kind="numbered", item=item.index, block=task.block)

    def _require_zarr(self, item: Item) -> None:
        if self.job.request.format not in (None, "tif", ZARR):
            raise RequestError(
                f"expected the format zarr, because {item.uri} is larger than the memory budget, got "
                f"{self.job.request.format}",
                field="format",
                hint="request the format zarr, or omit it",
            )

    def _location(self, uri: str, field: str) -> StorageLocation:
        return locate(uri, self.job.allowed, field=field)

    @staticmethod
    def _failed(task: Task, error: CytorayError, *, again: bool) -> Record:
        return Record(kind="failed", item=task.item.index, error=ErrorBody(**error.describe()), again=again)


def load_step(job: Job, number: int, settings: Settings) -> tuple[Bundle, ModelVersion | None]:
    """Open the bundle of a step of a job, the same as at its submission.

    Raises
    ------
    BundleError, ModelNotFoundError
        The model was replaced: all answers of a job come from one model.
    """
    bundle, version = load_bundle(job.steps[number], settings)
    wanted = job.models[number]
    if bundle.digest != wanted.digest:
        raise BundleError(
            f"expected the model {wanted.name} with the digest {wanted.digest[:12]}…, as at the submission of the job, "
            f"got {bundle.digest[:12]}…",
            field="model",
            hint="the model was replaced in the meantime: submit the job again",
        )
    return bundle, version


def megapixels(image: Image) -> float:
    """Return the size of an image or movie without its channels."""
    return math.prod(image.size(axis) for axis in image.axes if axis != "C") / 1e6
