"""One version of a model, loaded and answering: a question with the bytes of an image in, an answer in bytes out.

Only encoded bytes cross to and from the gateway. Images are decoded and answers encoded in a small pool of threads,
while the model computes other images: the model never waits for them. Between the models of a pipeline no bytes of
files are passed but arrays: see :class:`Given`.
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
from pydantic import BaseModel, ConfigDict, Field

from cytoray_analysis.devices import Precision
from cytoray_analysis.each import predict_each, require_each
from cytoray_analysis.errors import CytorayError, ImageTooLargeError
from cytoray_analysis.images import Image, Limits, read_image
from cytoray_analysis.predictor import MEMORY_BUDGET, ModelIdentity, Prediction, Predictor
from cytoray_analysis.selection import EVERYTHING, Selection
from cytoray_serving.answers import Answered, Form, choose_form
from cytoray_serving.answers.summary import compare, summarise
from cytoray_serving.exchange import UPLOADED, Answer, Question
from cytoray_serving.inputs import boxes_of_json, in_model_axes, is_movie, label_pixels, require_objects_fit
from cytoray_serving.lanes import Lane
from cytoray_serving.steps import run_step

if TYPE_CHECKING:
    from cytoray_analysis.bundle import Bundle
    from cytoray_services.settings import Settings

T = TypeVar("T")


class ReplicaOptions(BaseModel):
    """How a model is run.

    Attributes
    ----------
    device
        A torch device; None takes an accelerator where there is one.
    precision
        Of the network; None lets the predictor choose.
    threads
        Cores that the network may use; None takes all.
    memory_budget
        Bytes that one prediction may take; larger images are cut into tiles.
    batch_pixels
        Images of one shape go through the network together, up to this many pixels; by default a quarter of a
        megapixel on a CPU, whose caches hold no more, and sixteen on an accelerator.
    largest_image
        Pixels of the largest image that is answered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str | None = None
    precision: Precision | None = None
    threads: int | None = Field(default=None, ge=1)
    memory_budget: int = Field(default=MEMORY_BUDGET, ge=2**24)
    batch_pixels: int | None = Field(default=None, ge=1)
    largest_image: int = Field(default=2**28, ge=1)


@dataclass(frozen=True, eq=False)
class Given:
    """What the earlier models of a pipeline found, as the next one takes it.

    Attributes
    ----------
    image
        What the next model is asked about: the image that was sent, or the one that a model predicted.
    objects
        Labels (spatial…), of a movie (T, spatial…); None where no model found objects.
    steps
        The versions that answered, ``name/version``, in order.
    seconds
        Of each of them in all, by ``step1``, ``step2``….
    """

    image: Image
    objects: Any
    steps: tuple[str, ...]
    seconds: dict[str, float]


@dataclass(frozen=True, eq=False)
class _Asked:
    """An image, decoded, with what is known of its objects, and whether its planes are answered one by one."""

    image: Image
    objects: Any
    pixels: int  # at the pixel size of the model
    selection: Selection = EVERYTHING

    @property
    def alike(self) -> Hashable:
        """What requests have in common that go through the network together; those with objects or stacks go alone."""
        if self.objects is not None or self.selection.each:
            return id(self)
        return self.image.axes, self.image.shape, self.image.dtype.str, self.pixels


@dataclass(frozen=True, eq=False)
class _Predicted:
    answered: Answered
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
        Who answers, by its name in the registry, which need not be the one that the bundle was written under.
    options
        How it is run.

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

    async def answer(self, question: Question, given: Given | None = None) -> Answer | CytorayError:
        """Answer one question.

        Parameters
        ----------
        given
            What earlier models of a pipeline found; None where this model is the only one.

        Returns
        -------
        Answer or CytorayError
            The error is returned, not raised: it is an answer too, and nothing of the replica's.
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
            encode = partial(_encode, form, outcome.answered, question.summary)
            (encoded, summary), encoding = await loop.run_in_executor(lane.threads, _timed, encode)
        except CytorayError as error:
            return error
        prediction = outcome.answered.prediction
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
            channels=tuple(outcome.answered.channels),
            place=outcome.place,
        )

    async def step(self, question: Question, given: Given | None, *, movie: bool) -> Given | CytorayError:
        """Find what the next model of a pipeline needs: objects, or another image of the same cells.

        Parameters
        ----------
        movie
            Whether the model that answers in the end takes movies; their frames are then answered one by one.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._lanes[0].threads, self._step, question, given, movie)
        except CytorayError as error:
            return error

    async def compare(self, other: LoadedModel, question: Question) -> dict[str, float] | CytorayError:
        """Ask another version the same question, and measure how far its answer agrees with that of this one."""

        def agreement() -> dict[str, float]:
            first, second = (one._predict_alone(question) for one in (self, other))
            return compare(first, second, self._predictor)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._lanes[0].threads, agreement)
        except CytorayError as error:
            return error

    def close(self) -> None:
        """Let what is at work finish, and end the threads."""
        for lane in self._lanes.values():
            lane.close()

    def _read(self, question: Question, given: Given | None) -> _Asked:
        """Take what earlier models found, or decode the files of a question."""
        predictor = self._predictor
        expected = predictor.bundle.spec.input
        require_each(predictor.bundle.spec, predictor.task.output.per, question.selection.each)
        if given is not None:
            found = () if given.objects is None else given.steps
            require_objects_fit(predictor, masks=question.masks, boxes=question.boxes, segmentation=found or None)
            return self._asked(given.image, given.objects, question.selection)
        require_objects_fit(predictor, masks=question.masks, boxes=question.boxes)
        image = self._image(question, movie=is_movie(expected))
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
                hint="send a job; where the file is wrong about its pixel size, say it with pixel_size",
            )
        return _Asked(image, objects, pixels, selection)

    def _image(self, question: Question, *, movie: bool) -> Image:
        """Decode the image of a question, and take what is chosen of it."""
        image = self._decode(question.image, "the image", question.selection)
        return in_model_axes(image, movie=movie).warn(*question.warnings)

    def _decode(self, body: bytes, name: str, selection: Selection = EVERYTHING, *, labels: bool = False) -> Image:
        pixels = self._options.largest_image
        limits = Limits(pixels, decoded_bytes=16 * pixels, frames=UPLOADED.frames)
        return read_image(body, limits=limits, name=name, selection=selection, labels=labels)

    def _step(self, question: Question, given: Given | None, movie: bool) -> Given:
        started = time.perf_counter()
        image = self._image(question, movie=movie) if given is None else given.image
        image, objects = run_step(self._predictor, image, None if given is None else given.objects, question.selection)
        # In memory: it goes to another process.
        image = replace(image, data=image.read())
        steps = () if given is None else given.steps
        seconds = {} if given is None else given.seconds
        name = self.identity.name if self.identity.version is None else f"{self.identity.name}/{self.identity.version}"
        taken = {f"step{len(steps) + 1}": time.perf_counter() - started}
        return Given(image, objects, (*steps, name), seconds | taken)

    def _predict_alone(self, question: Question) -> Prediction:
        asked = self._read(question, None)
        return predict_each(self._predictor, asked.image, asked.selection, asked.objects)

    def _predict(self, batch: Sequence[_Asked]) -> list[_Predicted | CytorayError]:
        outcomes, seconds = _timed(self._outcomes, batch)
        return [
            outcome
            if isinstance(outcome, CytorayError)
            else _Predicted(
                Answered(replace(outcome, model=self.identity), asked.image, self._predictor, asked.objects),
                len(batch),
                place,
                seconds,
            )
            for place, (asked, outcome) in enumerate(zip(batch, outcomes, strict=True))
        ]

    def _outcomes(self, batch: Sequence[_Asked]) -> list[Prediction | CytorayError]:
        first = batch[0]
        if not first.selection.each:
            return self._predictor.predict_batch([one.image for one in batch], [one.objects for one in batch])
        try:  # a stack is alone in its batch
            return [predict_each(self._predictor, first.image, first.selection, first.objects)]
        except CytorayError as error:
            return [error]


def load_model(reference: str, settings: Settings, options: ReplicaOptions) -> LoadedModel:
    """Load a version of a model.

    Parameters
    ----------
    reference
        ``name/version`` or a bundle folder.

    Raises
    ------
    CytorayError
        It does not exist, cannot be fetched or fails its own test.
    """
    from cytoray_services.registry import load_bundle

    bundle, version = load_bundle(reference, settings, known=True)
    name = bundle.spec.name if version is None else version.name
    return LoadedModel(
        bundle, ModelIdentity(name, None if version is None else version.version, bundle.digest), options
    )


def exact_reference(reference: str, settings: Settings) -> str:
    """Return the version that a reference meant when a gateway of this machine last looked; a folder as it is.

    A replica that starts loads it beforehand. Not to ask the registry saves half of the seconds that it takes; where
    the alias has moved just now, the gateway asks for the other version by its number.

    Raises
    ------
    ModelNotFoundError, PlatformError
        Nobody has looked yet, and there is no such model or no answer.
    """
    from cytoray_services.registry import Registry

    if Path(reference).is_dir():
        return reference
    registry = Registry.open(settings)
    known = registry.last_known(reference)
    return (known or registry.resolve_or_known(reference)[0]).reference


def _timed(work: Callable[..., T], *arguments: Any) -> tuple[T, float]:
    """Do some work, and say how long it took, without the wait for a thread."""
    begun = time.perf_counter()
    return work(*arguments), time.perf_counter() - begun


def _encode(form: Form, answered: Answered, summary: bool) -> tuple[bytes, dict[str, float]]:
    return form.encode(answered), summarise(answered.prediction, _pixels(answered.image) / 1e6) if summary else {}


def _pixels(image: Image) -> int:
    size = 1
    for axis in image.axes:
        size *= image.size(axis) if axis != "C" else 1
    return size
