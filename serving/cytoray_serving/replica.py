"""One model, loaded and answering: bytes of an image in, bytes of an answer out.

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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from cytoray_analysis.devices import Precision
from cytoray_analysis.errors import CytorayError, InputError
from cytoray_analysis.images import Image
from cytoray_analysis.images.reader import Limits, read_image
from cytoray_analysis.predictor import MEMORY_BUDGET, ModelIdentity, Prediction, Predictor
from cytoray_services.registry import Registry, load_bundle, parse_reference
from cytoray_serving.answers import form_named
from cytoray_serving.batching import BatchQueue
from cytoray_serving.schema import ModelStatus

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
class Answer:
    """An encoded answer, with what the gateway says and counts about it.

    Attributes
    ----------
    body, media_type
        The answer itself.
    name, version, digest
        The model that gave it.
    objects
        Objects that it holds.
    megapixels
        Size of the image.
    body_in
        Bytes of the image file.
    batch
        Images that went through the network together.
    seconds
        Per stage: ``read`` (image decoding and scaling), ``queue``, ``network``, ``decode`` (outputs to objects),
        ``encode``, and what else the predictor measures.
    """

    body: bytes
    media_type: str
    name: str
    version: str | None
    digest: str
    objects: int
    megapixels: float
    body_in: int
    batch: int
    seconds: dict[str, float] = field(default_factory=dict)


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


@dataclass(frozen=True)
class _Predicted:
    prediction: Prediction
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
        self._queue: BatchQueue[Image, _Predicted | CytorayError] = BatchQueue(
            self._predict,
            key=lambda image: (image.axes, image.shape, image.dtype.str),
            cost=_pixels,
            budget=options.batch_pixels or (2**20 if self._loaded.predictor.device.type == "cpu" else 2**24),
        )
        self._refused: str | None = None
        self._stopped = threading.Event()
        if follows:
            threading.Thread(target=self._follow, name="follow", daemon=True).start()

    async def answer(self, body: bytes, form: str) -> Answer | CytorayError:
        """Answer one image.

        Parameters
        ----------
        body
            The bytes of an image file.
        form
            Name of one of :data:`cytoray_serving.answers.FORMS`.

        Returns
        -------
        Answer or CytorayError
            The error is returned, not raised: it is an answer too, and nothing of the replica's.
        """
        loop = asyncio.get_running_loop()
        try:
            begun = time.perf_counter()
            image = await loop.run_in_executor(self._threads, self._read, body)
            waiting = time.perf_counter()
            outcome = await self._queue.submit(image)
            if isinstance(outcome, CytorayError):
                return outcome
            encoding = time.perf_counter()
            prediction = outcome.prediction
            chosen = form_named(form)
            encoded = await loop.run_in_executor(self._threads, chosen.encode, prediction, image)
        except CytorayError as error:
            return error
        seconds = prediction.seconds | {
            "read": waiting - begun + prediction.seconds["read"],
            "queue": outcome.started - waiting,
            "encode": time.perf_counter() - encoding,
        }
        return Answer(
            body=encoded,
            media_type=chosen.media_type,
            name=prediction.model.name,
            version=prediction.model.version,
            digest=prediction.model.digest,
            objects=prediction.objects,
            megapixels=_pixels(image) / 1e6,
            body_in=len(body),
            batch=outcome.batch,
            seconds=seconds,
        )

    def status(self) -> ModelStatus:
        """Describe what is loaded."""
        loaded = self._loaded
        spec = loaded.bundle.spec
        return ModelStatus(
            name=loaded.identity.name,
            version=loaded.identity.version,
            digest=loaded.identity.digest,
            reference=self.reference,
            task=spec.task.name,
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

    def _read(self, body: bytes) -> Image:
        pixels = self._options.largest_image
        return read_image(body, limits=Limits(pixels, decoded_bytes=16 * pixels), name="the image")

    def _predict(self, images: Sequence[Image]) -> list[_Predicted | CytorayError]:
        started = time.perf_counter()
        loaded = self._loaded  # taken once: a new version takes over between batches, never within one
        return [
            outcome
            if isinstance(outcome, CytorayError)
            else _Predicted(replace(outcome, model=loaded.identity), len(images), started)
            for outcome in loaded.predictor.predict_batch(images)
        ]

    def _load(self, bundle: Bundle, version: ModelVersion | None) -> _Loaded:
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
        return _Loaded(predictor, bundle, version, datetime.now(UTC))

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


__all__ = ["Answer", "ModelServer", "ReplicaOptions"]
