"""How ``cytoray predict`` has one input answered: in this process, or by a service."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from cytoray_analysis.answer_warnings import Warnings, join_warnings
from cytoray_analysis.each import predict_each, require_each
from cytoray_analysis.errors import RequestError
from cytoray_analysis.images import Image, write_image
from cytoray_analysis.images.axes import SPATIAL_AXES
from cytoray_analysis.images.writer import write_labels
from cytoray_analysis.inference.objects import require_labels, segment
from cytoray_analysis.predictor import Predictor, StoredPrediction
from cytoray_analysis.selection import Selection
from cytoray_analysis.tasks import TruthKind
from cytoray_services.registry import load_bundle
from cytoray_services.settings import Settings
from cytoray_serving.answer_record import fingerprint
from cytoray_serving.answer_writer import AnswerWriter
from cytoray_serving.answers import Answered, Form, form_named
from cytoray_serving.answers.images import answer_image
from cytoray_serving.client import Client
from cytoray_serving.given_objects import GivenObjects, InputObjects
from cytoray_serving.input_files import InputFile
from cytoray_serving.inputs import (
    cells_of_rows,
    in_model_axes,
    is_movie,
    label_pixels,
    open_input,
    open_masks,
    require_objects_fit,
)
from cytoray_serving.schema import ChannelChosen, ModelAnswered

ZARR, ZARR_SUFFIX = "zarr", ".ome.zarr"
_ZARR_KINDS = ("labels", "image")


@dataclass(frozen=True)
class Done:
    """What is said of an answer: how many objects it holds, what was assumed, which channels were chosen."""

    objects: int
    warnings: Warnings = ()
    channels: tuple[ChannelChosen, ...] = ()


@dataclass(frozen=True)
class Answerer:
    """Answers one input after the other.

    Attributes
    ----------
    kind
        What the answers are.
    formats
        Names of the forms that are asked for.
    digest
        Of the model.
    options
        What decides every answer beside image, objects and model.
    answer
        Given an input, where its objects are, the names of the forms to write, and what writes them, answers it.
    spatial_axes
        Of what the model looks at; of movies those of a frame.
    """

    kind: TruthKind
    formats: tuple[str, ...]
    digest: str
    options: dict[str, Any]
    answer: Callable[[InputFile, InputObjects, Sequence[str], AnswerWriter], Done]
    spatial_axes: str = "YX"

    def targets(self, stem: Path, form: str) -> list[tuple[str, Path]]:
        """Return where a form of an answer may be written, with the form that it then has.

        Answers to images too large for memory are OME-Zarr where a TIFF was asked for.
        """
        large = form == "tif" and self.kind in _ZARR_KINDS and ZARR not in self.formats
        names = (form, ZARR) if large else (form,)
        return [(name, stem.with_name(stem.name + self._suffix(name))) for name in names]

    def options_of(self, source: InputFile, objects: InputObjects) -> dict[str, Any]:
        """Return what decides the answer to an input beside the image and the model, for the record.

        Raises
        ------
        CytorayError
            As :meth:`InputObjects.masks_of` and :meth:`InputObjects.boxes_of` raise it.
        """
        masks, boxes = objects.masks_of(source.path), objects.boxes_of(source.path)
        return self.options | {
            "selection": source.selection.given(),
            "masks": None if masks is None else fingerprint(masks),
            "boxes": None if boxes is None else hashlib.sha256(json.dumps(boxes).encode()).hexdigest(),
        }

    @property
    def suffixes(self) -> tuple[str, ...]:
        """All that the names of answers may end in."""
        names = (*self.formats, ZARR) if self.kind in _ZARR_KINDS else self.formats
        return tuple(dict.fromkeys(map(self._suffix, names)))

    def _suffix(self, form: str) -> str:
        return ZARR_SUFFIX if form == ZARR else form_named(form, self.kind).suffix


def answer_here(
    model: str,
    formats: Sequence[str],
    given: GivenObjects,
    *,
    settings: Settings,
    memory_budget: int,
    device: str | None,
) -> Answerer:
    """Answer with a predictor in this process.

    Parameters
    ----------
    model
        ``name``, ``name@alias``, ``name/version`` or a bundle folder.
    formats
        Names of the answers' forms, or ``zarr``; the first of the model's kind for none.
    given
        What is given of the objects beside the inputs.
    settings
        Where the registry is.
    memory_budget
        Bytes for one prediction; larger images are cut.
    device
        A torch device; None takes an accelerator where there is one.

    Raises
    ------
    CytorayError
        A model does not exist, or its answers have no such form.
    """

    def load(reference: str) -> Predictor:
        bundle, version = load_bundle(reference, settings)
        number = None if version is None else version.version
        return Predictor(bundle, device=device, memory_budget=memory_budget, version=number)

    predictor = load(model)
    kind = predictor.task.output.truth
    names = _names(formats, kind)
    require_objects_fit(predictor, masks=given.masks, boxes=given.boxes, segmentation=given.segmentation)
    segmenter = None
    if given.segmentation is not None:
        segmenter = load(given.segmentation)
        require_labels(segmenter, given.segmentation)
    expected = predictor.bundle.spec.input
    one = predictor.identity
    identity = ModelAnswered(name=one.name, version=one.version, digest=one.digest)

    def objects_of(path: Path, image: Image, objects: InputObjects, selection: Selection) -> tuple[Any, Warnings]:
        if segmenter is not None:
            if selection.each:
                stack = predict_each(segmenter, image, selection)
                return stack.answer, stack.warnings
            with _progress(f"{path.name}: segmentation") as progress:
                found = segment(image, segmenter, progress=progress)
            return found.labels, found.warnings
        masks, rows = objects.masks_of(path), objects.boxes_of(path)
        if masks is not None:
            labelled = open_masks(masks)
            return label_pixels(labelled, expected, selection, image.axes), labelled.warnings
        return None if rows is None else cells_of_rows(rows, image, expected), ()

    def answer(source: InputFile, objects: InputObjects, wanted: Sequence[str], writer: AnswerWriter) -> Done:
        selection = source.selection
        require_each(predictor.bundle.spec, predictor.task.output.per, selection.each)
        image = in_model_axes(open_input(source.path, selection), movie=is_movie(expected))
        large = predictor.task.output.per == "pixel" and not selection.each and not predictor.fits(image)
        if large or (tuple(wanted) == (ZARR,) and not selection.each):
            return _stream(predictor, image, wanted, writer, identity)
        given_here, warnings = objects_of(source.path, image, objects, selection)
        image = image.warn(*warnings)
        prediction = predict_each(predictor, image, selection, given_here)
        answered = Answered(prediction, image, predictor, given_here)
        for name in wanted:
            suffix = ZARR_SUFFIX if name == ZARR else form_named(name, kind).suffix
            writer.write(name, suffix, identity, _filling(name, kind, answered))
        return Done(prediction.objects, join_warnings(image.warnings, prediction.warnings), tuple(answered.channels))

    options = {"segmentation": None if segmenter is None else segmenter.identity.digest}
    return Answerer(kind, names, one.digest, options, answer, expected.spatial_axes)


def answer_there(client: Client, model: str, formats: Sequence[str], given: GivenObjects) -> Answerer:
    """Answer by asking a service, once for every form; parameters as of :func:`answer_here`.

    Raises
    ------
    ModelNotFoundError
        The service has no such model.
    PlatformError
        The service does not answer.
    """
    if ZARR in formats:
        raise RequestError(
            "a service does not answer with OME-Zarr", field="format", hint="leave --url or --format zarr out"
        )
    status = client.model(model)
    kind = status.kind
    names = _names(formats, kind)

    def answer(source: InputFile, objects: InputObjects, wanted: Sequence[str], writer: AnswerWriter) -> Done:
        count = 0
        warnings: Warnings = ()
        channels: tuple[ChannelChosen, ...] = ()
        for form in (form_named(name, kind) for name in wanted):
            served = client.predict(
                source.path,
                model=model,
                accept=form.media_type,
                masks=objects.masks_of(source.path),
                boxes=objects.boxes_of(source.path),
                segmentation=given.segmentation,
                **source.selection.choices(),
            )
            count, warnings, channels = served.objects, join_warnings(warnings, served.warnings), served.channels
            identity = ModelAnswered(name=served.model, version=served.version, digest=served.digest)
            writer.write(form.name, form.suffix, identity, _filling_served(form, served.body))
        return Done(count, warnings, channels)

    segmentation = None if given.segmentation is None else client.model(given.segmentation).digest
    axes = "".join(axis for axis in status.axes if axis in SPATIAL_AXES)
    return Answerer(kind, names, status.digest, {"segmentation": segmentation}, answer, axes)


def _names(formats: Sequence[str], kind: TruthKind) -> tuple[str, ...]:
    """Return the names of forms, each once, checked; the first of the kind for none."""
    for name in formats:
        if name != ZARR:
            form_named(name, kind)
        elif kind not in _ZARR_KINDS:
            raise RequestError(
                f"expected a format for answers of the kind {kind!r}, got zarr, which holds images",
                field="format",
                hint="leave --format out, or see: cytoray predict --help",
            )
    return tuple(dict.fromkeys(formats)) or (form_named(None, kind).name,)


def _filling(name: str, kind: TruthKind, answered: Answered) -> Callable[[Path], None]:
    """Return what makes the file or folder of a prediction in one form."""

    def fill(draft: Path) -> None:
        if name == ZARR:
            if kind == "labels":
                write_labels(
                    draft, answered.prediction.answer, axes=answered.axes, pixel_size=answered.image.pixel_size
                )
            else:
                write_image(draft, answer_image(answered))
            return
        form = form_named(name, kind)
        if form.write_folder is None:
            draft.write_bytes(form.encode(answered))
        else:
            draft.mkdir()
            form.write_folder(answered, draft)

    return fill


def _filling_served(form: Form, body: bytes) -> Callable[[Path], None]:
    """Return what makes the file or folder of what a service answered; archives are unpacked."""

    def fill(draft: Path) -> None:
        if form.write_folder is None:
            draft.write_bytes(body)
            return
        with zipfile.ZipFile(BytesIO(body)) as archive:
            draft.mkdir()
            archive.extractall(draft)

    return fill


def _stream(
    predictor: Predictor, image: Image, wanted: Sequence[str], writer: AnswerWriter, identity: ModelAnswered
) -> Done:
    """Answer for an image that does not fit into memory, block by block, into an OME-Zarr."""
    stored: list[StoredPrediction] = []

    def fill(draft: Path) -> None:
        with _progress(Path(image.source).name) as progress:
            stored.append(predictor.predict_to_zarr(image, draft, progress=progress))

    others = [name for name in wanted if name not in ("tif", ZARR)]
    if len(others) < len(wanted):
        writer.write(ZARR, ZARR_SUFFIX, identity, fill)
    if others:
        writer.errors.append(
            RequestError(
                f"{image.source} is larger than the memory budget, so its answer is written as OME-Zarr, not as "
                f"{', '.join(others)}",
                field="format",
                hint="use --format zarr, or give more --memory",
            )
        )
    return Done(sum(one.objects for one in stored), join_warnings(image.warnings, *(one.warnings for one in stored)))


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on standard error, and give the function that moves it."""
    with Progress(*Progress.get_default_columns(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
