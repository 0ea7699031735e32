"""The HTTP face: routes, limits, headers and metrics.

Knows nothing of Ray: it asks a :class:`~cytoray_serving.dispatch.Dispatch`, so it is tested against real models in one
process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Header, Path, Request, Response
from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from cytoray_analysis.errors import CytorayError
from cytoray_services.access import Access
from cytoray_services.http_api import begin_api
from cytoray_services.http_errors import ErrorBody
from cytoray_serving.answers import media_types
from cytoray_serving.bodies import PARAMETERS, REQUEST_BODY, read_question
from cytoray_serving.dispatch import Dispatch
from cytoray_serving.headers import answer_headers, described
from cytoray_serving.jobs.request import JobStatus
from cytoray_serving.requests import unless_gone
from cytoray_serving.schema import (
    ClassTable,
    FeatureCollection,
    ImageTable,
    ModelList,
    ModelStatus,
    ObjectTable,
    Ready,
    TrackTable,
    UriQuestion,
)
from cytoray_serving.service_config import ServiceConfig
from cytoray_serving.sources import fetch_question

T = TypeVar("T")

# What is written in JSON, by media type; all other answers are bytes.
_JSON_ANSWERS: dict[str, tuple[type[BaseModel], ...]] = {
    "application/json": (ObjectTable, ImageTable, ClassTable, TrackTable),
    "application/geo+json": (FeatureCollection,),
}
_ANSWERS: dict[str, Any] = {
    media_type: {"schema": {"type": "string"} | ({} if media_type.startswith("text/") else {"format": "binary"})}
    for media_type in media_types()
}
# Of a request that comes to no answer.
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {
        "model": ErrorBody,
        "description": "No image, a malformed request, or objects that the model cannot use or lacks.",
    },
    401: {"model": ErrorBody, "description": "No token, or one that is not valid."},
    403: {"model": ErrorBody, "description": "The token lacks the scope, or the service may not read there."},
    404: {"model": ErrorBody, "description": "No such model or version, or nothing lies at the URI."},
    406: {"model": ErrorBody, "description": "Accept allows no form that this model's answers come in."},
    408: {"model": ErrorBody, "description": "The seconds that X-Cytoray-Timeout allows have passed."},
    413: {"model": ErrorBody, "description": "The body or the image is too large; the message names the limit."},
    422: {"model": ErrorBody, "description": "The image or the masks cannot be read, or do not suit the model."},
    429: {"model": ErrorBody, "description": "As much is waiting as may; Retry-After says when to come again."},
    503: {"model": ErrorBody, "description": "The model is starting, or did not answer in time."},
}
_PREDICTED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer, in the form that Accept likes best; which there are depends on the model, "
        "see media_types in GET /models.",
        "content": _ANSWERS,
        "headers": described(),
    },
    303: {
        "model": JobStatus,
        "description": "The request named an output and has become a job; Location says where it is.",
    },
    **_REFUSALS,
}
Version = Annotated[int, Path(ge=1, lt=10**9, description="Version of the model in the registry.")]
Timeout = Annotated[
    float | None, Header(alias="X-Cytoray-Timeout", gt=0, le=86400, description="Seconds to wait for the answer.")
]


def create_api(
    dispatch: Dispatch,
    registry: CollectorRegistry,
    *,
    config: ServiceConfig,
    access: Access,
    submit: Callable[[str, str | None, UriQuestion, Request], Awaitable[JobStatus]],
    routers: Sequence[APIRouter] = (),
    background: Callable[[], Awaitable[None]] | None = None,
) -> FastAPI:
    """Build the HTTP application.

    Parameters
    ----------
    dispatch
        What answers.
    registry
        Of the metrics.
    config
        The limits, and the places that may be read.
    access
        Who may ask.
    submit
        Turns a question whose answer shall lie somewhere else into a job.
    routers
        Other doors of the service.
    background
        Runs for as long as the application does.
    """
    api = begin_api(
        "Cytoray",
        "Microscopy images in, answers about cells out.",
        registry,
        measure=dispatch.measure,
        background=background,
    )
    _add_readiness(api, dispatch)
    may_predict = [Depends(access.require("predict"))]

    @api.get("/models", tags=["models"], dependencies=may_predict, responses=_only(401, 403, 503))
    async def list_models() -> ModelList:
        """List what is served, and what was asked for lately."""
        return ModelList(models=await dispatch.statuses())

    @api.get("/models/{model}", tags=["models"], dependencies=may_predict, responses=_only(401, 403, 404, 422, 503))
    async def show_model(model: str) -> ModelStatus:
        """Show one model."""
        return await dispatch.status(model, None)

    @api.get(
        "/models/{model}/versions/{version}",
        tags=["models"],
        dependencies=may_predict,
        responses=_only(401, 403, 404, 422, 503),
    )
    async def show_version(model: str, version: Version) -> ModelStatus:
        """Show one version of a model."""
        return await dispatch.status(model, str(version))

    predicts: dict[str, Any] = {
        "tags": ["models"],
        "response_class": Response,
        "dependencies": may_predict,
        "responses": _PREDICTED,
        "openapi_extra": {"requestBody": REQUEST_BODY, "parameters": PARAMETERS},
    }

    @api.post("/models/{model}/predict", **predicts)
    async def predict(
        model: str, request: Request, accept: Annotated[str | None, Header()] = None, timeout: Timeout = None
    ) -> Response:
        """Answer one image."""
        return await answered(model, None, request, accept, timeout)

    @api.post("/models/{model}/versions/{version}/predict", **predicts)
    async def predict_with(
        model: str,
        version: Version,
        request: Request,
        accept: Annotated[str | None, Header()] = None,
        timeout: Timeout = None,
    ) -> Response:
        """Answer one image with one version of a model."""
        return await answered(model, str(version), request, accept, timeout)

    async def answered(
        model: str, version: str | None, request: Request, accept: str | None, timeout: float | None
    ) -> Response:
        if accept is not None:  # it may come in several lines
            accept = ", ".join(request.headers.getlist("accept"))
        try:
            asked = await read_question(request, accept)
            if isinstance(asked, UriQuestion):
                if asked.output is not None:
                    return _see_other(await submit(model, version, asked, request))
                asked = await asyncio.to_thread(fetch_question, asked, accept, config)
        except CytorayError as error:
            dispatch.refused(error)
            raise
        except ClientDisconnect:
            dispatch.left()
            raise
        work = dispatch.answer(model, version, asked, deadline=timeout)
        answer = await unless_gone(request, work)
        return Response(answer.body, headers=answer_headers(answer))

    for router in routers:
        api.include_router(router)
    _describe_json_answers(api)
    return api


def _add_readiness(api: FastAPI, dispatch: Dispatch) -> None:
    @api.get("/health/ready", tags=["health"], responses={503: {"model": ErrorBody}})
    async def ready() -> Ready:
        """Say that every model that keeps a replica has one that answers."""
        await dispatch.require_ready()
        return Ready(models=sorted(dispatch.names))


def _see_other(job: JobStatus) -> Response:
    """Say where the job is that a request has become."""
    content = job.model_dump_json()
    return Response(content, 303, {"Location": f"/jobs/{job.id}", "Content-Type": "application/json"})


def _only(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: _REFUSALS[status] for status in statuses}


def _describe_json_answers(api: FastAPI) -> None:
    """Put the schemas of the JSON answers into the OpenAPI document, beside those of the binary ones."""
    document = api.openapi()
    for operation in (operation for path in document["paths"].values() for operation in path.values()):
        for status, response in operation["responses"].items():
            # FastAPI describes errors in the media type of the route; they are JSON everywhere.
            content = response.get("content", {})
            if status[0] in "45" and content and "application/json" not in content:
                response["content"] = {"application/json": next(iter(content.values()))}
    schemas = document["components"]["schemas"]
    schemas["UriQuestion"] = UriQuestion.model_json_schema()
    paths = ("/models/{model}/predict", "/models/{model}/versions/{version}/predict")
    contents = [document["paths"][path]["post"]["responses"]["200"]["content"] for path in paths]
    for media_type, models in _JSON_ANSWERS.items():
        references = []
        for model in models:
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
            references.append({"$ref": f"#/components/schemas/{model.__name__}"})
        for content in contents:
            content[media_type] = {"schema": references[0] if len(references) == 1 else {"oneOf": references}}
