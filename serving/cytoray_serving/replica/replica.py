"""One loaded version of a model, which turns a question with encoded files into an encoded answer.

Only encoded bytes cross to and from the gateway. Images are decoded and answers encoded in a small pool of threads,
while the model computes other images: the model never waits for them. Between the models of a pipeline no bytes of
files are passed but arrays: see :class:`StepInput`.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from cytoray_analysis.each import predict_each, require_each
from cytoray_analysis.errors import CytorayError, ImageTooLargeError
from cytoray_analysis.images import Image, Limits, read_image
from cytoray_analysis.predictor import ModelIdentity, Prediction, Predictor
from cytoray_analysis.selection import EVERYTHING, Selection
from cytoray_serving.answers import Form, choose_form
from cytoray_serving.answers.form import channels_chosen
from cytoray_serving.answers.summary import compare, summarise
from cytoray_serving.inputs import boxes_of_json, in_model_axes, label_pixels, require_objects_fit
from cytoray_serving.messages import UPLOADED, Answer, Question
from cytoray_serving.replica.lanes import Lane
from cytoray_serving.replica.options import ReplicaOptions
from cytoray_serving.replica.steps import run_step

if TYPE_CHECKING:
    from cytoray_analysis.bundle import Bundle
    from cytoray_services.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class StepInput:
    """The results of the earlier models of a pipeline, for the next one.

    Attributes
    ----------
    image
        The input image of the next model: the one that was sent, or a predicted one.
    objects
        Labels (spatial…), or (T, spatial…) for a movie; None if no model found objects.
    steps
        The versions that answered, ``name/version``, in order.
    seconds
        Total seconds of each of them, by ``step1``, ``step2``….
    """

    image: Image
    objects: Any
    steps: tuple[str, ...]
    seconds: dict[str, float]


@dataclass(frozen=True, eq=False)
class _Asked:
    """A decoded image with its given objects, and whether its planes are predicted one by one."""

    image: Image
    objects: Any
    pixels: int  # at the pixel size of the model
    selection: Selection = EVERYTHING

    @property
    def alike(self) -> Hashable:
        """The key of requests that share a batch; requests with objects or stacks are alone."""
        if self.objects is not None or self.selection.each:
            return id(self)
        return self.image.axes, self.image.shape, self.image.dtype.str, self.pixels


@dataclass(frozen=True, eq=False)
class _Predicted:
    prediction: Prediction
    batch: int
    place: int
    seconds: float  # of the whole batch


class LoadedModel:
    """Answers with one version of a model.

    Parameters
    ----------
    bundle
        The model; it is tested and warmed up.
    identity
        The version in the registry, whose name may differ from the name in the bundle.
    options
        Options of the replica.

    Raises
    ------
    BundleError
        The bundle fails its own test.
    """

    def __init__(self, bundle: Bundle, identity: ModelIdentity, options: ReplicaOptions) -> None:
        self.identity = identity
        self._options = options
        self._predictor = Predictor(
            bundle,
            device=options.device,
            precision=options.precision,
            memory_budget=options.memory_budget,
            threads=options.threads,
            name=identity.name,
            version=identity.version,
        )
        bundle.self_test()
        self._predictor.warm_up()
        on_cpu = self._predictor.device.type == "cpu"
        self._lanes: defaultdict[int, Lane[_Asked, _Predicted | CytorayError]] = defaultdict(
            lambda: Lane(
                self._predict,
                key=lambda asked: asked.alike,
                cost=lambda asked: asked.pixels,
                budget=options.batch_pixels or (2**18 if on_cpu else 2**24),
                cores=options.threads or torch.get_num_threads(),
                on_cpu=on_cpu,
            )
        )

    async def answer(self, question: Question, given: StepInput | None = None) -> Answer | CytorayError:
        """Answer one question.

        Parameters
        ----------
        given
            Results of earlier models of a pipeline; None if this is the only model.

        Returns
        -------
        Answer or CytorayError
            The error is returned, not raised: it is a valid response, not a failure of the replica.
        """
        loop = asyncio.get_running_loop()
        lane = self._lanes[question.lane]
        try:
            begun = time.perf_counter()
            form = choose_form(question.accept, self._predictor.task.output.truth)
            asked, reading = await loop.run_in_executor(lane.threads, _timed, self._read, question, given)
            outcome = await lane.queue.submit(asked)
            if isinstance(outcome, CytorayError):
                return outcome
            encode = partial(_encode, form, outcome.prediction, question.summary)
            (encoded, summary), encoding = await loop.run_in_executor(lane.threads, _timed, encode)
        except CytorayError as error:
            return error
        prediction = outcome.prediction
        seconds = prediction.seconds | {
            "read": reading + prediction.seconds["read"],
            "queue": time.perf_counter() - begun - reading - encoding - outcome.seconds,
            "encode": encoding,
        }
        return Answer(
            body=encoded,
            media_type=form.media_type,
            name=prediction.model.name,
            version=prediction.model.version,
            digest=prediction.model.digest,
            kind=prediction.kind,
            objects=prediction.objects,
            steps=() if given is None else given.steps,
            megapixels=asked.pixels / 1e6,
            body_in=len(question.image) + len(question.masks or b""),
            batch=outcome.batch,
            seconds=seconds if given is None else given.seconds | seconds,
            summary=summary,
            warnings=prediction.warnings,
            channels=tuple(channels_chosen(prediction.image)),
            place=outcome.place,
        )

    async def step(self, question: Question, given: StepInput | None, *, movie: bool) -> StepInput | CytorayError:
        """Compute the input of the next model of a pipeline: objects, or another image of the same cells.

        Parameters
        ----------
        movie
            Whether the last model takes movies; their frames are then processed one by one.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._lanes[0].threads, self._step, question, given, movie)
        except CytorayError as error:
            return error

    async def compare(self, other: LoadedModel, question: Question) -> dict[str, float] | CytorayError:
        """Answer the same question with another version, and measure the agreement of the two answers."""

        def agreement() -> dict[str, float]:
            first, second = (one._predict_alone(question) for one in (self, other))
            return compare(first, second)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._lanes[0].threads, agreement)
        except CytorayError as error:
            return error

    def close(self) -> None:
        """Finish batches in progress and end the threads."""
        for lane in self._lanes.values():
            lane.close()

    def _read(self, question: Question, given: StepInput | None) -> _Asked:
        """Use the results of earlier models, or decode the files of a question."""
        predictor = self._predictor
        expected = predictor.bundle.spec.input
        require_each(predictor.bundle.spec, predictor.task.output.per, question.selection.each)
        if given is not None:
            found = () if given.objects is None else given.steps
            require_objects_fit(predictor, masks=question.masks, boxes=question.boxes, segmentation=found or None)
            return self._asked(given.image, given.objects, question.selection)
        require_objects_fit(predictor, masks=question.masks, boxes=question.boxes)
        image = self._image(question, movie=expected.movies)
        objects: Any = None
        if question.masks is not None:
            masks = self._decode(question.masks, "the masks", labels=True)
            objects = label_pixels(masks, expected, question.selection, image.axes)
            image = image.warn(*masks.warnings)
        elif question.boxes is not None:
            objects = boxes_of_json(question.boxes, image, expected)
        return self._asked(image, objects, question.selection)

    def _asked(self, image: Image, objects: Any, selection: Selection) -> _Asked:
        pixels, most = self._predictor.network_pixels(image), self._options.largest_image
        if pixels > most:
            raise ImageTooLargeError(
                f"{image.source}: expected at most {most / 1e6:.0f} megapixels at the model's pixel size, "
                f"got {pixels / 1e6:.0f}",
                field="image",
                hint="submit a job; if the pixel size in the file is wrong, set pixel_size",
            )
        return _Asked(image, objects, pixels, selection)

    def _image(self, question: Question, *, movie: bool) -> Image:
        """Decode the selected part of the image of a question."""
        image = self._decode(question.image, "the image", question.selection)
        return in_model_axes(image, movie=movie).warn(*question.warnings)

    def _decode(self, body: bytes, name: str, selection: Selection = EVERYTHING, *, labels: bool = False) -> Image:
        pixels = self._options.largest_image
        limits = Limits(pixels, decoded_bytes=16 * pixels, frames=UPLOADED.frames)
        return read_image(body, limits=limits, name=name, selection=selection, labels=labels)

    def _step(self, question: Question, given: StepInput | None, movie: bool) -> StepInput:
        started = time.perf_counter()
        image = self._image(question, movie=movie) if given is None else given.image
        image, objects = run_step(self._predictor, image, None if given is None else given.objects, question.selection)
        # In memory, because it is sent to another process.
        image = replace(image, data=image.read())
        steps = () if given is None else given.steps
        seconds = {} if given is None else given.seconds
        name = self.identity.name if self.identity.version is None else f"{self.identity.name}/{self.identity.version}"
        taken = {f"step{len(steps) + 1}": time.perf_counter() - started}
        return StepInput(image, objects, (*steps, name), seconds | taken)

    def _predict_alone(self, question: Question) -> Prediction:
        asked = self._read(question, None)
        return predict_each(self._predictor, asked.image, asked.selection, asked.objects)

    def _predict(self, batch: Sequence[_Asked]) -> list[_Predicted | CytorayError]:
        outcomes, seconds = _timed(self._outcomes, batch)
        return [
            outcome if isinstance(outcome, CytorayError) else _Predicted(outcome, len(batch), place, seconds)
            for place, outcome in enumerate(outcomes)
        ]

    def _outcomes(self, batch: Sequence[_Asked]) -> list[Prediction | CytorayError]:
        first = batch[0]
        if not first.selection.each:
            return self._predictor.predict_batch([one.image for one in batch], [one.objects for one in batch])
        try:  # a stack is a batch of its own
            return [predict_each(self._predictor, first.image, first.selection, first.objects)]
        except CytorayError as error:
            return [error]


def load_model(reference: str, settings: Settings, options: ReplicaOptions) -> LoadedModel:
    """Load a version of a model.

    Parameters
    ----------
    reference
        ``name/version#digest``, ``name/version`` or a bundle folder.

    Raises
    ------
    CytorayError
        The version does not exist, cannot be fetched or fails its own test.
    """
    from cytoray_services.registry import load_bundle

    bundle, version = load_bundle(reference, settings, known=True)
    name = bundle.spec.name if version is None else version.name
    return LoadedModel(
        bundle, ModelIdentity(name, None if version is None else version.version, bundle.digest), options
    )


def exact_reference(reference: str, settings: Settings) -> str:
    """Return the last version of a reference that a gateway of this machine found; a folder unchanged.

    A starting replica loads it in advance. Without a request to the registry this takes half the time; if the alias has
    just moved, the gateway requests the new version by its number.

    Raises
    ------
    ModelNotFoundError, PlatformError
        No gateway has looked it up, and the registry has no such model or does not answer.
    """
    from cytoray_services.registry import Registry

    if Path(reference).is_dir():
        return reference
    registry = Registry.open(settings)
    known = registry.last_known(reference)
    return (known or registry.resolve_or_known(reference)[0]).exact_reference


def _timed(work: Callable[..., T], *arguments: Any) -> tuple[T, float]:
    """Do some work, and return its time without the wait for a thread."""
    begun = time.perf_counter()
    return work(*arguments), time.perf_counter() - begun


def _encode(form: Form, prediction: Prediction, summary: bool) -> tuple[bytes, dict[str, float]]:
    return form.encode(prediction), summarise(prediction, _pixels(prediction.image) / 1e6) if summary else {}


def _pixels(image: Image) -> int:
    size = 1
    for axis in image.axes:
        size *= image.size(axis) if axis != "C" else 1
    return size
