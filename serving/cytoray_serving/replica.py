"""One model, loaded and answering: a question with the bytes of an image in, an answer in bytes out.

Only encoded bytes cross to and from the gateway. Images are decoded and answers encoded in a small pool of threads,
while the model computes other images: the model never waits for them.

The registry is asked every few seconds where the reference points. A version that is new there is fetched, tested
and warmed up beside the old one, and takes over between two batches; while the registry cannot be reached, what is
loaded keeps answering.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from cytoray_analysis.devices import Precision
from cytoray_analysis.errors import CytorayError, InputError
from cytoray_analysis.images import Image
from cytoray_analysis.images.reader import Limits, read_image
from cytoray_analysis.inference.objects import find_objects
from cytoray_analysis.predictor import MEMORY_BUDGET, ModelIdentity, Predictor
from cytoray_services.registry import Registry, load_bundle, parse_reference
from cytoray_serving.answers import FORMS, Answered, choose_form
from cytoray_serving.batching import BatchQueue
from cytoray_serving.exchange import Answer, Question
from cytoray_serving.inputs import boxes_of_json, in_model_axes, label_pixels, require_objects_fit
from cytoray_serving.schema import ModelStatus
from cytoray_serving.segmentation import Segmenters

if TYPE_CHECKING:
    from cytoray_analysis.bundle import Bundle
    from cytoray_services.registry import ModelVersion
    from cytoray_services.settings import Settings

log = logging.getLogger(__name__)


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
        Images of one shape go through the network together, up to this many pixels; by default a megapixel on a
        CPU, which gains nothing from more, and sixteen on an accelerator.
    largest_image
        Pixels of the largest image that is answered.
    poll_seconds
        Time between two looks at the registry.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str | None = None
    precision: Precision | None = None
    threads: int | None = Field(default=None, ge=1)
    memory_budget: int = Field(default=MEMORY_BUDGET, ge=2**24)
    batch_pixels: int | None = Field(default=None, ge=1)
    largest_image: int = Field(default=2**28, ge=1)
    poll_seconds: float = Field(default=2.0, gt=0)


@dataclass(frozen=True)
class _Loaded:
    predictor: Predictor
    bundle: Bundle
    version: ModelVersion | None
    since: datetime

    @property
    def identity(self) -> ModelIdentity:
        """Who answers, by its name in the registry, which need not be the one that the bundle was written under."""
        identity = self.predictor.identity
        return identity if self.version is None else replace(identity, name=self.version.name)


@dataclass(frozen=True, eq=False)
class _Asked:
    """An image, decoded, with what is told of its objects or the model that finds them."""

    image: Image
    objects: Any
    segmenter: Predictor | None

    @property
    def alike(self) -> Hashable:
        """What requests have in common that go through the network together; those with objects go alone."""
        if self.objects is not None or self.segmenter is not None:
            return id(self)
        return self.image.axes, self.image.shape, self.image.dtype.str


@dataclass(frozen=True, eq=False)
class _Predicted:
    answered: Answered
    batch: int
    started: float


class ModelServer:
    """Answers for one reference, which it follows.

    Parameters
    ----------
    reference
        ``name``, ``name@alias``, ``name/version`` or a bundle folder.
    settings
        Where the registry is.
    options
        How the model is run.

    Raises
    ------
    CytorayError
        The model does not exist, cannot be fetched or fails its own test.
    """

    def __init__(self, reference: str, settings: Settings, options: ReplicaOptions) -> None:
        self.reference = reference
        self._settings = settings
        self._registry = Registry.open(settings)
        self._options = options
        self._loaded = self._load(*load_bundle(reference, settings))
        follows = self._loaded.version is not None and parse_reference(reference).version is None
        self._registry_state = "following" if follows else "fixed"
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="encode")
        self._queue: BatchQueue[_Asked, _Predicted | CytorayError] = BatchQueue(
            self._predict,
            key=lambda asked: asked.alike,
            cost=lambda asked: _pixels(asked.image),
            budget=options.batch_pixels or (2**20 if self._loaded.predictor.device.type == "cpu" else 2**24),
        )
        self._segmenters = Segmenters(settings, self._predictor, options.poll_seconds)
        self._refused: str | None = None
        self._stopped = threading.Event()
        if follows:
            threading.Thread(target=self._follow, name="follow", daemon=True).start()

    async def answer(self, question: Question) -> Answer | CytorayError:
        """Answer one question.

        Returns
        -------
        Answer or CytorayError
            The error is returned, not raised: it is an answer too, and nothing of the replica's.
        """
        loop = asyncio.get_running_loop()
        try:
            begun = time.perf_counter()
            form = choose_form(question.accept, self._loaded.predictor.task.output.truth)
            asked, segmentation = await loop.run_in_executor(self._threads, self._read, question)
            waiting = time.perf_counter()
            outcome = await self._queue.submit(asked)
            if isinstance(outcome, CytorayError):
                return outcome
            encoding = time.perf_counter()
            encoded = await loop.run_in_executor(self._threads, form.encode, outcome.answered)
        except CytorayError as error:
            return error
        prediction = outcome.answered.prediction
        seconds = prediction.seconds | {
            "read": waiting - begun + prediction.seconds["read"],
            "queue": outcome.started - waiting,
            "encode": time.perf_counter() - encoding,
        }
        return Answer(
            body=encoded,
            media_type=form.media_type,
            name=prediction.model.name,
            version=prediction.model.version,
            digest=prediction.model.digest,
            kind=prediction.kind,
            objects=prediction.objects,
            segmentation=segmentation,
            megapixels=_pixels(asked.image) / 1e6,
            body_in=len(question.image) + len(question.masks or b""),
            batch=outcome.batch,
            seconds=seconds,
        )

    def status(self) -> ModelStatus:
        """Describe what is loaded."""
        loaded = self._loaded
        spec = loaded.bundle.spec
        kind = loaded.predictor.task.output.truth
        return ModelStatus(
            name=loaded.identity.name,
            version=loaded.identity.version,
            digest=loaded.identity.digest,
            reference=self.reference,
            task=spec.task.name,
            kind=kind,
            media_types=[form.media_type for form in FORMS[kind].values()],
            axes=spec.input.axes,
            channels=list(spec.input.channels),
            grey_as_rgb=spec.input.grey_as_rgb,
            pixel_size=spec.input.pixel_size,
            loaded=loaded.since.isoformat(timespec="seconds"),
            registry=self._registry_state,
        )

    def close(self) -> None:
        """Stop following the registry and end the threads."""
        self._stopped.set()
        self._queue.close()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _read(self, question: Question) -> tuple[_Asked, str | None]:
        """Decode the files of a question; returns the version of the model that will find its objects, too."""
        predictor = self._loaded.predictor
        expected = predictor.bundle.spec.input
        require_objects_fit(predictor, masks=question.masks, boxes=question.boxes, segmentation=question.segmentation)
        image = in_model_axes(self._decode(question.image, "the image"), expected)
        if question.segmentation is not None:
            segmenter, version = self._segmenters.find(question.segmentation)
            return _Asked(image, None, segmenter), version.reference
        objects: Any = None
        if question.masks is not None:
            objects = label_pixels(self._decode(question.masks, "the masks"), expected)
        elif question.boxes is not None:
            objects = boxes_of_json(question.boxes, image, expected)
        return _Asked(image, objects, None), None

    def _decode(self, body: bytes, name: str) -> Image:
        pixels = self._options.largest_image
        return read_image(body, limits=Limits(pixels, decoded_bytes=16 * pixels), name=name)

    def _predict(self, batch: Sequence[_Asked]) -> list[_Predicted | CytorayError]:
        started = time.perf_counter()
        loaded = self._loaded  # taken once: a new version takes over between batches, never within one
        try:
            objects = [
                one.objects if one.segmenter is None else find_objects(one.image, one.segmenter) for one in batch
            ]
        except CytorayError as error:
            return [error for _ in batch]  # one that needs a segmentation goes alone
        found = {} if batch[0].segmenter is None else {"segmentation": time.perf_counter() - started}
        outcomes = loaded.predictor.predict_batch([one.image for one in batch], objects)
        return [
            outcome
            if isinstance(outcome, CytorayError)
            else _Predicted(
                Answered(
                    replace(outcome, model=loaded.identity, seconds=outcome.seconds | found),
                    one.image,
                    loaded.predictor,
                    own,
                ),
                len(batch),
                started,
            )
            for one, own, outcome in zip(batch, objects, outcomes, strict=True)
        ]

    def _load(self, bundle: Bundle, version: ModelVersion | None) -> _Loaded:
        return _Loaded(self._predictor(bundle, version), bundle, version, datetime.now(UTC))

    def _predictor(self, bundle: Bundle, version: ModelVersion | None) -> Predictor:
        """Load a bundle, test it and warm it up."""
        options = self._options
        predictor = Predictor(
            bundle,
            device=options.device,
            precision=options.precision,
            memory_budget=options.memory_budget,
            threads=options.threads,
            version=None if version is None else version.version,
        )
        bundle.self_test()
        predictor.warm_up()
        return predictor

    def _follow(self) -> None:
        """Look at the registry until the server closes."""
        while not self._stopped.wait(self._options.poll_seconds):
            try:
                state = self._look()
            except CytorayError as error:
                state = _kept(error)
            except Exception as error:
                log.exception("following %s failed; it is tried again", self.reference)
                state = _kept(error)
            if state != self._registry_state:
                log.warning("%s: %s", self.reference, state)
            self._registry_state = state

    def _look(self) -> str:
        """Ask the registry once, and take over a new version; returns what to say about it."""
        version = self._registry.resolve(self.reference)
        if self._loaded.version is not None and version.version == self._loaded.version.version:
            self._refused = None
            return "following"
        if version.version == self._refused:
            return self._registry_state
        try:
            self._loaded = self._load(*load_bundle(version.reference, self._settings))
        except InputError:
            # A damaged version is tried once, and again when the alias has moved; an outage is tried until it is over.
            self._refused = version.version
            raise
        return "following"


def _kept(error: Exception) -> str:
    """Say why the loaded version stays; one line, because callers of the service see it."""
    lines = str(error).splitlines() or [type(error).__name__]
    return f"stays at the loaded version: {lines[0]}"


def _pixels(image: Image) -> int:
    size = 1
    for axis in image.axes:
        size *= image.size(axis) if axis != "C" else 1
    return size


__all__ = ["ModelServer", "ReplicaOptions"]
