"""What a worker of a job does: one image, or one block of a large one, at a time.

A worker writes an answer in one step, and the same bytes whenever it answers the same image: one image per prediction,
a fixed number of threads, no times in the answer. An item that is done twice, because its worker was lost before it
could say so, is there once.
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
from cytoray_analysis.errors import CytorayError, PlatformError, RequestError
from cytoray_analysis.images import Image, Limits, read_image, write_image
from cytoray_analysis.images.writer import write_labels
from cytoray_analysis.inference.blocks import Blocks
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.selection import Selection
from cytoray_analysis.tracking.ctc import read_masks, read_movie
from cytoray_services.http_errors import ErrorBody
from cytoray_services.registry import load_bundle
from cytoray_services.settings import Settings
from cytoray_serving.answers import Answered, form_named
from cytoray_serving.answers.images import answer_image
from cytoray_serving.box_table import read_boxes
from cytoray_serving.inputs import cells_of_rows, in_model_axes, label_pixels
from cytoray_serving.jobs import large
from cytoray_serving.jobs.store import Item, Job, Record
from cytoray_serving.path_matching import PathMatcher, path_of_uri
from cytoray_serving.places import Place, place
from cytoray_serving.steps import run_steps

log = logging.getLogger(__name__)

ZARR = "zarr"


class Task(BaseModel):
    """A piece of work.

    Attributes
    ----------
    kind
        To answer an ``item``, or one ``block`` of it, or to ``number`` the objects of a block.
    block, core
        Which block, and the size of the blocks that the image is cut into.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["item", "block", "number"]
    item: Item
    block: int = 0
    core: tuple[int, ...] = ()


class Worker:
    """Does one piece of work after the other.

    Parameters
    ----------
    job
        What is to be done.
    settings
        Where the registry is.
    models
        Whether the models are needed; numbering blocks needs none.
    """

    def __init__(self, job: Job, settings: Settings, *, models: bool = True) -> None:
        self.job = job
        self.predictors = [self._load(step, settings) for step in job.steps] if models else []
        self._cut: tuple[int, Blocks] | None = None
        self._open = ExitStack()  # of the image whose blocks are being answered
        self._numbering: tuple[int, Any, Any] | None = None

    def work(self, task: Task) -> Record:
        """Do a piece of work; what goes wrong with it is its record."""
        start = time.perf_counter()
        doing = {"item": self._item, "block": self._block, "number": self._number}[task.kind]
        try:
            record = doing(task)
        except CytorayError as error:
            record = self._failed(task, error, again=isinstance(error, PlatformError))
        except Exception as error:
            # A fault of ours, or of a library that met an image it does not expect: the other images go on.
            log.exception("%s failed", task.item.uri)
            unexpected = CytorayError(f"{type(error).__name__}: {error}", hint="the job's log says more")
            record = self._failed(task, unexpected, again=True)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return record.model_copy(update={"seconds": time.perf_counter() - start, "memory": peak})

    def _load(self, reference: str, settings: Settings) -> Predictor:
        options = self.job.options
        bundle, version = load_bundle(reference, settings)
        predictor = Predictor(
            bundle,
            device=options.device,
            precision=options.precision,
            memory_budget=options.memory_budget,
            threads=options.threads or 1,
            version=None if version is None else version.version,
        )
        if version is not None:
            predictor.identity = replace(predictor.identity, name=version.name)
        return predictor

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
            answered = run_steps(self.predictors, image.warn(*warnings), objects, selection)
            # How long it took is in the records; in an answer it would make two of one image differ.
            answered = replace(answered, prediction=replace(answered.prediction, seconds={}))
            written = self._write(item, answered)
        return Record(
            kind="done",
            item=item.index,
            output=written.uri,
            objects=answered.prediction.objects,
            megapixels=megapixels(image),
            warnings=answered.prediction.warnings,
        )

    def _selection(self, item: Item) -> Selection:
        """Return what of an image is asked about: that of the job, of the item's series."""
        selection = self.job.request.without("series")
        return selection if item.series is None else Selection(**selection.given(), series=item.series)

    def _image(self, item: Item, stack: ExitStack) -> Image:
        """Open what is chosen of an image, a movie, or a movie's frames, as long as the stack is."""
        source, selection = self._place(item.uri, "input"), self._selection(item)
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
        """Return what the job says of the objects of an image, and what was assumed about it."""
        expected = self.predictors[0].bundle.spec.input
        if item.masks is not None:
            source = self._place(item.masks, "masks")
            selection = self._selection(item)
            if source.is_folder() and not source.is_zarr():
                masks = read_masks(stack.enter_context(source.local()), alone=True)
            else:
                masks = source.open_image(Limits(), labels=True)
            return label_pixels(masks, expected, selection, image.axes), masks.warnings
        if self.job.request.boxes is None:
            return None, ()
        table = stack.enter_context(self._place(self.job.request.boxes, "boxes").local())
        image_path = path_of_uri(item.uri)
        rows = read_boxes(table).boxes_by(PathMatcher([image_path]), image_path, alone=item.alone)
        return cells_of_rows(rows, image, expected), ()

    def _write(self, item: Item, answered: Answered) -> Place:
        output = self._place(self.job.request.output, "output")
        if self.job.request.format == ZARR:
            target = output.joined(f"{item.name}.ome.zarr")
            with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
                path = Path(folder) / target.name
                if answered.prediction.kind == "labels":
                    sizes, axes = answered.image.pixel_size, answered.axes
                    write_labels(path, answered.prediction.answer, pixel_size=sizes, axes=axes)
                else:
                    write_image(path, answer_image(answered))
                large.write_zarr(target, path)
            return target
        form = form_named(self.job.request.format, answered.prediction.kind)
        # A form that is a folder is written as the archive that callers get: it appears in one step.
        suffix = form.suffix if form.write_folder is None else f"{form.suffix}.zip"
        target = output.joined(f"{item.name}{suffix}")
        target.write_bytes(form.encode(answered))
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
                f"{item.uri} is larger than the memory budget, so its answer is OME-Zarr, got "
                f"the format {self.job.request.format}",
                field="format",
                hint="ask for the format zarr, or leave it out",
            )

    def _place(self, uri: str, field: str) -> Place:
        return place(uri, self.job.allowed, field=field)

    @staticmethod
    def _failed(task: Task, error: CytorayError, *, again: bool) -> Record:
        return Record(kind="failed", item=task.item.index, error=ErrorBody(**error.describe()), again=again)


def megapixels(image: Image) -> float:
    """Return the size of an image or movie, whatever its channels."""
    return math.prod(image.size(axis) for axis in image.axes if axis != "C") / 1e6
