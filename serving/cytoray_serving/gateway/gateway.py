"""The HTTP API: routes, limits, headers and metrics.

Does not know Ray: it calls a :class:`~cytoray_serving.gateway.dispatch.Dispatch`, so tests run it with real models
in one process.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Header, Path, Request, Response
from prometheus_client import CollectorRegistry
from starlette.requests import ClientDisconnect

from cytoray_analysis.errors import CytorayError
from cytoray_services.http.api import begin_api
from cytoray_services.http.errors import ErrorBody
from cytoray_services.tokens.access import Access
from cytoray_serving.answers import answer_kinds, forms_of
from cytoray_serving.gateway.bodies import PARAMETERS, REQUEST_BODY, read_question
from cytoray_serving.gateway.dispatch import Dispatch
from cytoray_serving.gateway.permitted import Permitted, require_model
from cytoray_serving.gateway.requests import unless_gone
from cytoray_serving.gateway.sources import fetch_question
from cytoray_serving.gateway.teams import allowed_for
from cytoray_serving.headers import answer_headers, described
from cytoray_serving.jobs.request import JobStatus
from cytoray_serving.messages import Answer, Count, Question
from cytoray_serving.schema import (
    ModelList,
    ModelStatus,
    Ready,
    UriQuestion,
)
from cytoray_serving.service.config import ServiceConfig

T = TypeVar("T")

# Responses of failed requests.
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {
        "model": ErrorBody,
        "description": "No image, a malformed request, or objects that the model cannot use or needs.",
    },
    401: {"model": ErrorBody, "description": "No token, or an invalid token."},
    403: {"model": ErrorBody, "description": "The token lacks the scope, or the location is not allowed."},
    404: {"model": ErrorBody, "description": "No such model or version, or no file at the URI."},
    406: {"model": ErrorBody, "description": "Accept allows no format of this model's answers."},
    408: {"model": ErrorBody, "description": "The timeout of X-Cytoray-Timeout has passed."},
    413: {"model": ErrorBody, "description": "The body or the image is too large; the message names the limit."},
    422: {"model": ErrorBody, "description": "The image or the masks cannot be read, or do not match the model."},
    429: {"model": ErrorBody, "description": "The queue is full; Retry-After gives the seconds until a retry."},
    503: {"model": ErrorBody, "description": "The model is starting, or did not answer in time."},
}
_PREDICTED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer, in the best format for Accept; the formats depend on the model, see media_types in "
        "GET /models.",
        "headers": described(),
    },
    303: {
        "model": JobStatus,
        "description": "The request has an output and became a job; Location has its address.",
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
        Answers the questions.
    registry
        Registry of the metrics.
    config
        The limits and the allowed locations.
    access
        The access rules.
    submit
        Turns a request with an output URI into a job.
    routers
        Routers of other interfaces of the service.
    background
        Runs while the application runs.
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

    def permitted(request: Request) -> Permitted:
        return Permitted(dispatch, request.state.caller)

    @api.get("/models", tags=["models"], dependencies=may_predict, responses=_only(401, 403, 503))
    async def list_models(request: Request) -> ModelList:
        """List the served and recently used models that the token allows."""
        return ModelList(models=await permitted(request).statuses())

    @api.get("/models/{model}", tags=["models"], dependencies=may_predict, responses=_only(401, 403, 404, 422, 503))
    async def show_model(model: str, request: Request) -> ModelStatus:
        """Show one model."""
        return await permitted(request).status(model, None)

    @api.get(
        "/models/{model}/versions/{version}",
        tags=["models"],
        dependencies=may_predict,
        responses=_only(401, 403, 404, 422, 503),
    )
    async def show_version(model: str, version: Version, request: Request) -> ModelStatus:
        """Show one version of a model."""
        return await permitted(request).status(model, str(version))

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
        if accept is not None:  # it may have several lines
            accept = ", ".join(request.headers.getlist("accept"))
        try:
            require_model(request.state.caller, model)
            asked = await read_question(request, accept)
            if isinstance(asked, UriQuestion) and asked.output is not None:
                return _see_other(await submit(model, version, asked, request))
        except CytorayError as error:
            dispatch.refused(error)
            raise
        except ClientDisconnect:
            dispatch.left()
            raise
        may = permitted(request)
        work = (
            fetched(may, model, version, asked, accept, timeout)
            if isinstance(asked, UriQuestion)
            else may.answer(model, version, asked, deadline=timeout)
        )
        answer = await unless_gone(request, work)
        return Response(answer.body, headers=answer_headers(answer))

    async def fetched(
        may: Permitted, model: str, version: str | None, asked: UriQuestion, accept: str | None, timeout: float | None
    ) -> Answer:
        """Answer a request with URIs of files."""
        allowed = allowed_for(may.caller, config.allowed, config.teams)

        def fetch(status: ModelStatus, count: Count) -> Question:
            return fetch_question(asked, accept, config, allowed, count)

        async with may.made(model, version, fetch, fetching=True) as question:
            return await may.answer(model, version, question, deadline=timeout)

    for router in routers:
        api.include_router(router)
    _describe_answers(api)
    return api


def _add_readiness(api: FastAPI, dispatch: Dispatch) -> None:
    @api.get("/health/ready", tags=["health"], responses={503: {"model": ErrorBody}})
    async def ready() -> Ready:
        """Report that every model with a permanent replica answers."""
        await dispatch.require_ready()
        return Ready(models=sorted(dispatch.names))


def _see_other(job: JobStatus) -> Response:
    """Return the address of the job that a request became."""
    content = job.model_dump_json()
    return Response(content, 303, {"Location": f"/jobs/{job.id}", "Content-Type": "application/json"})


def _only(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: _REFUSALS[status] for status in statuses}


def _describe_answers(api: FastAPI) -> None:
    """Add the formats of the answers to the OpenAPI document, with schemas for JSON."""
    document = api.openapi()
    for operation in (operation for path in document["paths"].values() for operation in path.values()):
        for status, response in operation["responses"].items():
            # FastAPI describes errors in the media type of the route, but they are always JSON.
            content = response.get("content", {})
            if status[0] in "45" and content and "application/json" not in content:
                response["content"] = {"application/json": next(iter(content.values()))}
    schemas = document["components"]["schemas"]
    schemas["UriQuestion"] = UriQuestion.model_json_schema()
    answers: dict[str, list[dict[str, str]]] = {}
    for form in (form for kind in answer_kinds() for form in forms_of(kind).values()):
        known = answers.setdefault(form.media_type, [])
        if form.schema is not None:
            schema = form.schema.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[form.schema.__name__] = schema
            known.append({"$ref": f"#/components/schemas/{form.schema.__name__}"})
    for path in ("/models/{model}/predict", "/models/{model}/versions/{version}/predict"):
        document["paths"][path]["post"]["responses"]["200"]["content"] = {
            media_type: {"schema": _schema_of(media_type, known)} for media_type, known in answers.items()
        }


def _schema_of(media_type: str, known: Sequence[dict[str, str]]) -> dict[str, Any]:
    """Return the schema of an answer in a media type; everything except JSON and text is bytes."""
    if known:
        return dict(known[0]) if len(known) == 1 else {"oneOf": list(known)}
    return {"type": "string"} | ({} if media_type.startswith("text/") else {"format": "binary"})
