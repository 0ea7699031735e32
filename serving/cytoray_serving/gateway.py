"""The HTTP face: routes, limits, headers, metrics, and the one place that turns errors into responses.

Knows nothing of Ray: it calls anything that answers like :class:`Model`, so it is tested against real models in
one process.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Annotated, Any, Protocol

from fastapi import FastAPI, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from cytoray_analysis.errors import CytorayError, ModelNotFoundError, PlatformError, RequestError
from cytoray_services.telemetry import ServingMetrics, serving_metrics
from cytoray_serving.answers import media_types
from cytoray_serving.bodies import REQUEST_BODY, read_question
from cytoray_serving.exchange import Answer, Question
from cytoray_serving.schema import (
    ClassTable,
    ErrorBody,
    FeatureCollection,
    ImageTable,
    Live,
    ModelList,
    ModelStatus,
    ObjectTable,
    Ready,
    TrackTable,
)

log = logging.getLogger(__name__)

LARGEST_BODY = 256 * 2**20
_READY_SECONDS = 2.0

# What is written in JSON, by media type; all other answers are bytes.
_JSON_ANSWERS: dict[str, tuple[type[BaseModel], ...]] = {
    "application/json": (ObjectTable, ImageTable, ClassTable, TrackTable),
    "application/geo+json": (FeatureCollection,),
}
_ANSWERS: dict[str, Any] = {
    media_type: {"schema": {"type": "string"} | ({} if media_type.startswith("text/") else {"format": "binary"})}
    for media_type in media_types()
}
_ANSWER_HEADERS = {
    "X-Cytoray-Model": "Name of the model that gave the answer.",
    "X-Cytoray-Version": "Its version in the registry; absent for a bundle folder.",
    "X-Cytoray-Digest": "SHA-256 of its specification and weights.",
    "X-Cytoray-Kind": "What the answer is: labels, image, class or lineage.",
    "X-Cytoray-Objects": "Number of objects, cells or tracks in the answer; 0 for images.",
    "X-Cytoray-Segmentation": "Version of the model that found the objects; absent where none was named.",
    "Server-Timing": "Milliseconds per stage (W3C Server Timing).",
}


class Model(Protocol):
    """What the gateway needs of a served model; errors of the caller come back as values of `answer`."""

    async def answer(self, question: Question) -> Answer | CytorayError:
        """Answer one question."""
        ...

    async def status(self) -> ModelStatus:
        """Describe what is loaded."""
        ...


def create_api(models: Mapping[str, Model], *, largest_body: int = LARGEST_BODY) -> FastAPI:
    """Build the HTTP application.

    Parameters
    ----------
    models
        Served models by the name in the address, such as ``nuclei`` and ``nuclei@champion``; several names may
        share a model.
    largest_body
        Bytes of the largest request body.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    metrics = serving_metrics(registry)
    api = FastAPI(
        title="Cytoray",
        description="Microscopy images in, answers about cells out.",
        version="1",
        docs_url="/docs",
        redoc_url=None,
        responses={
            "4XX": {"model": ErrorBody, "description": "The request cannot be answered as it is."},
            "5XX": {"model": ErrorBody, "description": "The service failed."},
        },
    )
    _add_error_handlers(api)

    @api.get("/health/live", tags=["health"])
    async def live() -> Live:
        """Say that the gateway runs."""
        return Live()

    @api.get("/health/ready", tags=["health"], responses={503: {"model": ErrorBody}})
    async def ready() -> Ready:
        """Say that every model answers."""
        await _all_statuses(models)
        return Ready(models=sorted(models))

    @api.get(
        "/metrics",
        tags=["health"],
        response_class=Response,
        responses={200: {"content": {CONTENT_TYPE_LATEST: {"schema": {"type": "string"}}}}},
    )
    async def prometheus() -> Response:
        """Give the metrics in Prometheus' text format."""
        metrics.model_info.clear()
        for status in await _ask_all(models):
            if isinstance(status, ModelStatus):
                metrics.model_info.labels(status.name, status.version or "", status.digest).set(1)
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @api.get("/models", tags=["models"])
    async def list_models() -> ModelList:
        """List what is served."""
        return ModelList(models=await _all_statuses(models))

    @api.get("/models/{model}", tags=["models"], responses={404: {"model": ErrorBody}})
    async def show_model(model: str) -> ModelStatus:
        """Show one model."""
        return await _find(models, model).status()

    @api.post(
        "/models/{model}/predict",
        tags=["models"],
        response_class=Response,
        responses={
            200: {
                "description": "The answer, in the form that Accept likes best; which there are depends on the model, "
                "see media_types in GET /models.",
                "content": _ANSWERS,
                "headers": {
                    name: {"description": text, "schema": {"type": "string"}} for name, text in _ANSWER_HEADERS.items()
                },
            },
            400: {
                "model": ErrorBody,
                "description": "No image, a malformed request, or objects that the model cannot use or lacks.",
            },
            404: {"model": ErrorBody, "description": "No such model, or no such segmentation model."},
            406: {"model": ErrorBody, "description": "Accept allows no form that this model's answers come in."},
            413: {"model": ErrorBody, "description": "The body or the image is too large."},
            422: {
                "model": ErrorBody,
                "description": "The image or the masks cannot be read, or do not suit the model.",
            },
            503: {"model": ErrorBody, "description": "The model is overloaded or starting."},
        },
        openapi_extra={"requestBody": REQUEST_BODY},
    )
    async def predict(model: str, request: Request, accept: Annotated[str | None, Header()] = None) -> Response:
        """Answer one image."""
        label = model if model in models else "unknown"
        with metrics.in_flight.labels(label).track_inprogress():
            try:
                answer, seconds = await _predict(_find(models, model), request, accept, largest_body)
            except Exception as error:
                status = error.status if isinstance(error, CytorayError) else CytorayError.status
                metrics.requests.labels(label, str(status)).inc()
                raise
        _count(metrics, label, answer, seconds)
        return Response(answer.body, headers=_headers(answer, seconds))

    _describe_json_answers(api)
    return api


async def _predict(model: Model, request: Request, accept: str | None, largest_body: int) -> tuple[Answer, float]:
    question = await read_question(request, accept, largest_body)
    begun = time.perf_counter()
    answer = await model.answer(question)
    if isinstance(answer, CytorayError):
        raise answer
    return answer, time.perf_counter() - begun


def _find(models: Mapping[str, Model], name: str) -> Model:
    if name not in models:
        raise ModelNotFoundError(
            f"expected one of the served models {', '.join(sorted(models))}, got {name!r}",
            field="model",
            hint="GET /models lists what is served",
        )
    return models[name]


async def _all_statuses(models: Mapping[str, Model]) -> list[ModelStatus]:
    """Ask every model what it has loaded; the first that fails raises its error."""
    statuses = []
    for status in await _ask_all(models):
        if isinstance(status, BaseException):
            raise status
        statuses.append(status)
    return statuses


async def _ask_all(models: Mapping[str, Model]) -> list[ModelStatus | BaseException]:
    async def ask(model: Model) -> ModelStatus:
        try:
            return await asyncio.wait_for(model.status(), _READY_SECONDS)
        except TimeoutError as error:
            raise PlatformError(f"a model did not answer within {_READY_SECONDS:g} s", hint="try again") from error

    different = {id(model): model for model in models.values()}
    return await asyncio.gather(*(ask(model) for model in different.values()), return_exceptions=True)


def _headers(answer: Answer, seconds: float) -> dict[str, str]:
    stages = {**answer.seconds, "total": seconds}
    headers = {
        "Content-Type": answer.media_type,
        "X-Cytoray-Model": answer.name,
        "X-Cytoray-Digest": answer.digest,
        "X-Cytoray-Kind": answer.kind,
        "X-Cytoray-Objects": str(answer.objects),
        "Server-Timing": ", ".join(f"{name};dur={1e3 * value:.3f}" for name, value in stages.items()),
        "Vary": "Accept",
    }
    if answer.version is not None:
        headers["X-Cytoray-Version"] = answer.version
    if answer.segmentation is not None:
        headers["X-Cytoray-Segmentation"] = answer.segmentation
    return headers


def _count(metrics: ServingMetrics, model: str, answer: Answer, seconds: float) -> None:
    metrics.requests.labels(model, "200").inc()
    metrics.latency.labels(model).observe(seconds)
    for stage, taken in answer.seconds.items():
        metrics.stages.labels(model, stage).observe(taken)
    metrics.megapixels.labels(model).inc(answer.megapixels)
    metrics.objects.labels(model).inc(answer.objects)
    metrics.batch_images.labels(model).observe(answer.batch)
    metrics.body_bytes.labels(model, "in").inc(answer.body_in)
    metrics.body_bytes.labels(model, "out").inc(len(answer.body))


def _add_error_handlers(api: FastAPI) -> None:
    """Give every error, whoever raised it, the one body that clients can rely on."""

    @api.exception_handler(CytorayError)
    async def cytoray_error(request: Request, error: CytorayError) -> JSONResponse:
        return _error_response(error.status, error.describe())

    @api.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return _error_response(422, RequestError(first["msg"], field=place).describe())

    @api.exception_handler(HTTPException)
    async def routing_error(request: Request, error: HTTPException) -> JSONResponse:
        described = RequestError(
            f"{error.detail}: {request.method} {request.url.path}", hint="GET /openapi.json lists the addresses"
        ).describe()
        return _error_response(error.status_code, described, error.headers)

    @api.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> JSONResponse:
        log.error("unexpected %s at %s %s", type(error).__name__, request.method, request.url.path, exc_info=error)
        described = CytorayError("the service failed to answer", hint="the service's log says why").describe()
        return _error_response(500, described)


def _error_response(status: int, body: dict[str, str], headers: Mapping[str, str] | None = None) -> JSONResponse:
    extra = dict(headers or {})
    if status == PlatformError.status:
        extra.setdefault("Retry-After", "1")
    return JSONResponse(body, status_code=status, headers=extra)


def _describe_json_answers(api: FastAPI) -> None:
    """Put the schemas of the JSON answers into the OpenAPI document, beside those of the binary ones."""
    document = api.openapi()
    schemas = document["components"]["schemas"]
    content = document["paths"]["/models/{model}/predict"]["post"]["responses"]["200"]["content"]
    for media_type, models in _JSON_ANSWERS.items():
        references = []
        for model in models:
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
            references.append({"$ref": f"#/components/schemas/{model.__name__}"})
        content[media_type] = {"schema": references[0] if len(references) == 1 else {"oneOf": references}}
