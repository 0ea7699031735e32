"""Real models of every kind behind the protocol, in this process and without Ray."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from numpy.typing import NDArray

from cytoray_analysis.errors import DeadlineError, ModelNotFoundError
from cytoray_analysis.images import image_from_array, read_image
from cytoray_analysis.predictor import Prediction, Predictor
from cytoray_serving.answers import choose_form, forms_of
from cytoray_serving.front.entrance import Entrance
from cytoray_serving.front.rules import HeldBytes, Rules
from cytoray_serving.inputs import boxes_of_json, in_model_axes, label_pixels, require_objects_fit
from cytoray_serving.messages import Answer, Answering, Count, Question
from cytoray_serving.open_inference.rest import open_inference_routes
from cytoray_serving.schema import ModelStatus
from serving_samples import LARGEST_BODY, moving_squares, noise

T = TypeVar("T")


class InProcess:
    """Answers with predictors, by their names; `nuclei` also as version 3."""

    def __init__(self, predictors: Mapping[str, Predictor]) -> None:
        self.predictors = predictors

    async def answer(
        self, model: str, version: str | None, question: Question, *, deadline: float | None = None
    ) -> Answer:
        predictor = self._find(model, version)
        try:
            return await asyncio.wait_for(asyncio.to_thread(self._answer, predictor, question), deadline)
        except TimeoutError as error:
            raise DeadlineError(f"no answer within {deadline} s", field="timeout") from error

    async def status(self, model: str, version: str | None) -> ModelStatus:
        predictor = self._find(model, version)
        expected = predictor.bundle.spec.input
        kind = predictor.task.output.truth
        return ModelStatus(
            name=predictor.identity.name,
            version="3" if predictor.identity.name == "nuclei" else None,
            digest=predictor.identity.digest,
            reference=predictor.identity.name,
            task=predictor.bundle.spec.task.name,
            kind=kind,
            media_types=[form.media_type for form in forms_of(kind).values()],
            axes=expected.axes,
            channels=list(expected.channels),
            grey_as_rgb=expected.grey_as_rgb,
            pixel_size=expected.pixel_size,
            loaded="2026-01-01T00:00:00+00:00",
            registry="fixed",
        )

    @asynccontextmanager
    async def made(self, model: str, version: str | None, make: Callable[[ModelStatus, Count], T]) -> AsyncIterator[T]:
        status = await self.status(model, version)
        yield await asyncio.to_thread(make, status, lambda size: None)

    async def statuses(self) -> list[ModelStatus]:
        return [await self.status(name, None) for name in self.predictors]

    def _find(self, model: str, version: str | None) -> Predictor:
        name = model.partition("@")[0]
        if name not in self.predictors or version not in (None, "3"):
            raise ModelNotFoundError(f"no model {model!r}", field="model", hint="ask for another")
        return self.predictors[name]

    def _answer(self, predictor: Predictor, question: Question) -> Answer:
        form = choose_form(question.accept, predictor.task.output.truth)
        prediction = predicted(predictor, question)
        return Answer(
            body=form.encode(prediction),
            media_type=form.media_type,
            name=prediction.model.name,
            version="3" if prediction.model.name == "nuclei" else None,
            digest=prediction.model.digest,
            kind=prediction.kind,
            objects=prediction.objects,
            steps=(),
            megapixels=0.0,
            body_in=len(question.image),
            batch=1,
            seconds=prediction.seconds,
        )


def predicted(predictor: Predictor, question: Question) -> Prediction:
    expected = predictor.bundle.spec.input
    require_objects_fit(predictor, masks=question.masks, boxes=question.boxes, segmentation=question.segmentation)
    image = in_model_axes(read_image(question.image), movie=expected.movies)
    objects = None
    if question.masks is not None:
        objects = label_pixels(read_image(question.masks), expected)
    elif question.boxes is not None:
        objects = boxes_of_json(question.boxes, image, expected)
    return predictor.predict(image, objects)


@dataclass(frozen=True, eq=False)
class Sample:
    """Pixels, and what a predictor itself says of them."""

    image: NDArray[np.uint8]
    masks: NDArray[np.uint16] | None
    prediction: Prediction


@pytest.fixture(scope="session")
def answering(segmenter: Predictor, stainer: Predictor, classifier: Predictor, linker: Predictor) -> InProcess:
    return InProcess({one.identity.name: one for one in (segmenter, stainer, classifier, linker)})


@pytest.fixture(scope="session")
def samples(answering: InProcess) -> dict[str, Sample]:
    """Give an image for each model, with what its predictor answers when nothing is in between."""
    movie, masks = moving_squares()
    given: dict[str, tuple[NDArray[np.uint8], NDArray[np.uint16] | None]] = {
        "nuclei": (noise(64, 96), None),
        "stain": (noise(64, 96), None),
        "cells": (movie[0], masks[0]),
        "linker": (movie, masks),
    }
    return {name: Sample(*pair, _ask(answering.predictors[name], *pair)) for name, pair in given.items()}


def _ask(predictor: Predictor, pixels: NDArray[np.uint8], masks: NDArray[np.uint16] | None) -> Prediction:
    axes = "TYX"[-pixels.ndim :]
    objects = None if masks is None else image_from_array(masks, axes)
    expected = predictor.bundle.spec.input
    return predictor.predict(
        image_from_array(pixels, axes), None if objects is None else label_pixels(objects, expected)
    )


Running = Callable[[Any], AbstractContextManager[str]]


@pytest.fixture(scope="session")
def running() -> Running:
    """Give the context manager that runs an application in uvicorn, in a thread, and gives its host and port."""

    @contextmanager
    def run(api: Any) -> Iterator[str]:
        server = uvicorn.Server(uvicorn.Config(api, host="127.0.0.1", port=0, log_level="warning"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        ends = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < ends, "uvicorn did not start"
            time.sleep(0.01)
        host, port = server.servers[0].sockets[0].getsockname()
        yield f"{host}:{port}"
        server.should_exit = True
        thread.join(20)

    return run


@pytest.fixture(scope="session")
def rest_url(answering: Answering, running: Running) -> Iterator[str]:
    """Run the routes over real models; gives host and port."""
    api = FastAPI()
    api.include_router(open_inference_routes(lambda _: answering, require_ready=answering.statuses))
    rules = Rules(lambda authorization: None, LARGEST_BODY, HeldBytes(2**30))
    with running(Entrance(api, secret=None, rules=lambda: rules)) as address:
        yield address
