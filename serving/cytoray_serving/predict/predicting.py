"""The two ways in which ``cytoray predict`` answers one input: in this process, or with a service."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from cytoray_analysis.answer_warnings import Warnings, join_warnings
from cytoray_analysis.errors import RequestError
from cytoray_analysis.images import Image
from cytoray_analysis.images.axes import SPATIAL_AXES
from cytoray_analysis.inference.objects import require_labels
from cytoray_analysis.kinds import TruthKind
from cytoray_analysis.predictor import Prediction, Predictor
from cytoray_services.registry import load_predictor
from cytoray_services.settings import Settings
from cytoray_serving.answers import ZARR, ZARR_SUFFIX, Form, answer_kind, form_named, require_zarr
from cytoray_serving.answers.form import channels_chosen
from cytoray_serving.client import Client
from cytoray_serving.inputs import (
    open_input,
    open_masks,
    require_objects_fit,
)
from cytoray_serving.predict.answer_record import fingerprint
from cytoray_serving.predict.answer_writer import AnswerWriter
from cytoray_serving.predict.answering import answer_one, in_axes_of
from cytoray_serving.predict.given_objects import GivenObjects, InputObjects
from cytoray_serving.predict.input_files import InputFile
from cytoray_serving.schema import ChannelChosen, ModelAnswered


@dataclass(frozen=True)
class Done:
    """Facts about an answer: the number of objects, the warnings and the chosen channels."""

    objects: int
    warnings: Warnings = ()
    channels: tuple[ChannelChosen, ...] = ()


@dataclass(frozen=True)
class Answerer:
    """Answers one input after the other.

    Attributes
    ----------
    kind
        Kind of the answers.
    formats
        Names of the requested forms.
    digest
        Digest of the model.
    options
        Options that decide every answer, besides image, objects and model.
    answer
        Answers an input, given its objects, the names of the forms to write, and the writer.
    spatial_axes
        Spatial axes of the model; of a frame for movies.
    """

    kind: TruthKind
    formats: tuple[str, ...]
    digest: str
    options: dict[str, Any]
    answer: Callable[[InputFile, InputObjects, Sequence[str], AnswerWriter], Done]
    spatial_axes: str = "YX"

    def targets(self, stem: Path, form: str) -> list[tuple[str, Path]]:
        """Return the possible paths of a form of an answer, with the actual form.

        Answers to images too large for memory are OME-Zarr instead of TIFF.
        """
        large = form == "tif" and answer_kind(self.kind).write_zarr and ZARR not in self.formats
        names = (form, ZARR) if large else (form,)
        return [(name, stem.with_name(stem.name + self._suffix(name))) for name in names]

    def options_of(self, source: InputFile, objects: InputObjects) -> dict[str, Any]:
        """Return the options that decide the answer to an input, besides image and model, for the record.

        Raises
        ------
        CytorayError
            See :meth:`InputObjects.masks_of` and :meth:`InputObjects.boxes_of`.
        """
        masks, boxes = objects.masks_of(source.path), objects.boxes_of(source.path)
        return self.options | {
            "selection": source.selection.given(),
            "masks": None if masks is None else fingerprint(masks),
            "boxes": None if boxes is None else hashlib.sha256(json.dumps(boxes).encode()).hexdigest(),
        }

    @property
    def suffixes(self) -> tuple[str, ...]:
        """All possible suffixes of answers."""
        names = (*self.formats, ZARR) if answer_kind(self.kind).write_zarr else self.formats
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
        Names of the forms, or ``zarr``; empty for the first of the model's kind.
    given
        The given objects.
    settings
        Location of the registry.
    memory_budget
        Bytes for one prediction; larger images are processed in tiles.
    device
        A torch device; None for an accelerator, if there is one.

    Raises
    ------
    CytorayError
        A model does not exist, or does not have the format.
    """
    predictor = load_predictor(model, settings, device=device, memory_budget=memory_budget)
    kind = predictor.task.output.truth
    names = _names(formats, kind)
    require_objects_fit(predictor, masks=given.masks, boxes=given.boxes, segmentation=given.segmentation)
    segmenter = None
    if given.segmentation is not None:
        segmenter = load_predictor(given.segmentation, settings, device=device, memory_budget=memory_budget)
        require_labels(segmenter, given.segmentation)
    expected = predictor.bundle.spec.input
    one = predictor.identity
    identity = ModelAnswered(name=one.name, version=one.version, digest=one.digest)

    def answer(source: InputFile, objects: InputObjects, wanted: Sequence[str], writer: AnswerWriter) -> Done:
        selection = source.selection
        image = in_axes_of(predictor, open_input(source.path, selection), selection)
        large = predictor.task.output.per == "pixel" and not selection.each and not predictor.fits(image)
        if large or (tuple(wanted) == (ZARR,) and not selection.each):
            return _stream(predictor, image, wanted, writer, identity)
        masks = objects.masks_of(source.path)
        with _progress(f"{source.path.name}: segmentation") if segmenter else nullcontext() as progress:
            prediction = answer_one(
                predictor,
                image,
                selection,
                masks=None if masks is None else open_masks(masks),
                boxes=objects.boxes_of(source.path),
                segmenter=segmenter,
                progress=progress,
            )
        for name in wanted:
            suffix = ZARR_SUFFIX if name == ZARR else form_named(name, kind).suffix
            writer.write(name, suffix, identity, _filling(name, prediction))
        return Done(prediction.objects, prediction.warnings, tuple(channels_chosen(prediction.image)))

    options = {"segmentation": None if segmenter is None else segmenter.identity.digest}
    return Answerer(kind, names, one.digest, options, answer, expected.spatial_axes)


def answer_there(client: Client, model: str, formats: Sequence[str], given: GivenObjects) -> Answerer:
    """Answer with a service, with one request for every form; parameters as for :func:`answer_here`.

    Raises
    ------
    ModelNotFoundError
        The service has no such model.
    PlatformError
        The service does not answer.
    """
    if ZARR in formats:
        raise RequestError("a service does not return OME-Zarr", field="format", hint="remove --url or --format zarr")
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
    """Return the valid names of forms, each once; by default the first of the kind."""
    for name in formats:
        if name == ZARR:
            require_zarr(kind)
        else:
            form_named(name, kind)
    return tuple(dict.fromkeys(formats)) or (form_named(None, kind).name,)


def _filling(name: str, prediction: Prediction) -> Callable[[Path], None]:
    """Return the function that writes a prediction in one form."""

    def fill(draft: Path) -> None:
        if name == ZARR:
            require_zarr(prediction.kind)(draft, prediction)
            return
        form = form_named(name, prediction.kind)
        if form.write_folder is None:
            draft.write_bytes(form.encode(prediction))
        else:
            draft.mkdir()
            form.write_folder(prediction, draft)

    return fill


def _filling_served(form: Form, body: bytes) -> Callable[[Path], None]:
    """Return the function that writes the answer of a service; archives are unpacked."""

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
    """Predict an image that does not fit into memory, block by block, into an OME-Zarr."""
    stored: list[Prediction] = []

    def fill(draft: Path) -> None:
        with _progress(Path(image.source).name) as progress:
            stored.append(predictor.predict_to_zarr(image, draft, progress=progress))

    others = [name for name in wanted if name not in ("tif", ZARR)]
    if len(others) < len(wanted):
        writer.write(ZARR, ZARR_SUFFIX, identity, fill)
    if others:
        writer.errors.append(
            RequestError(
                f"expected the format zarr, because {image.source} is larger than the memory budget, got "
                f"{', '.join(others)}",
                field="format",
                hint="use --format zarr, or increase --memory",
            )
        )
    return Done(sum(one.objects for one in stored), join_warnings(image.warnings, *(one.warnings for one in stored)))


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on standard error, and yield the function that updates it."""
    with Progress(*Progress.get_default_columns(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
