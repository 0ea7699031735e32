"""The Open Inference Protocol over REST: routes under ``/v2``, with errors in the format of the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from cytoray_analysis.errors import CytorayError
from cytoray_services.http.errors import refusal_headers
from cytoray_serving.gateway.requests import unless_gone
from cytoray_serving.messages import Answer, Answering, Count, Question
from cytoray_serving.open_inference.messages import (
    InferenceRequest,
    RequestBody,
    ResponseBody,
    compress,
    error_text,
    parse_request,
    write_response,
)
from cytoray_serving.open_inference.metadata import (
    ModelConfig,
    ModelIndexed,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
    model_config,
    model_index,
    model_metadata,
    server_metadata,
)
from cytoray_serving.open_inference.translate import asked_of, deadline_of, response_of
from cytoray_serving.schema import ModelStatus

_SMALL = 2**22  # bytes of an answer that is written beside others
_HEADER_LENGTH = "Inference-Header-Content-Length"
_TEXT = {"type": "string"}
_BINARY = {"schema": {"type": "string", "format": "binary"}}


class OpenInferenceError(BaseModel):
    """The body of an error response."""

    error: str = Field(description="What was expected, what was found, and what to do.")


_REFUSED: dict[int, str] = {
    400: "A malformed request, or tensors that the model does not accept.",
    401: "No token, or an invalid token.",
    403: "A token without the required scope.",
    404: "No such model, or no such segmentation model.",
    408: "The timeout of the parameter timeout has passed.",
    413: "The body or the image is too large.",
    422: "The image or the masks cannot be read, or do not match the model.",
    429: "The queue is full.",
    503: "The model is starting or cannot be reached.",
}


def open_inference_routes(
    answering: Callable[[Request], Answering],
    *,
    guard: Sequence[Any] = (),
    require_ready: Callable[[], Awaitable[object]],
) -> APIRouter:
    """Return the routes of the protocol; :mod:`cytoray_serving.front.entrance` limits and decompresses bodies.

    Parameters
    ----------
    answering
        Returns the service for the caller of a request.
    guard
        Dependencies that refuse unauthorized callers; the health routes need no token.
    require_ready
        Raises an error if the service is not ready.
    """
    router = APIRouter(prefix="/v2", tags=["open inference protocol"], route_class=_Route)
    writing = asyncio.Lock()  # one large answer at a time: each exists three times while it is written
    guarded: dict[str, Any] = {"dependencies": list(guard)}

    @router.get("/health/live")
    async def live() -> ServerLive:
        """Report that the server runs."""
        return ServerLive()

    @router.get("/health/ready", responses=_refusals(429, 503))
    async def ready() -> ServerReady:
        """Report that every model answers."""
        await require_ready()
        return ServerReady()

    @router.get("", responses=_refusals(401, 403), **guarded)
    async def show_server() -> ServerMetadata:
        """Describe the server."""
        return server_metadata()

    @router.post("/repository/index", responses=_refusals(401, 403, 429, 503), **guarded)
    async def index(request: Request) -> list[ModelIndexed]:
        """List the served models."""
        return model_index(await answering(request).statuses())

    for place, names in (("/models/{model}", ["model"]), ("/models/{model}/versions/{version}", ["model", "version"])):
        parameters = [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names]
        shared = guarded | {"openapi_extra": {"parameters": parameters}}
        _add_descriptions(router, place, answering, shared | {"responses": _refusals(400, 401, 403, 404, 429, 503)})
        _add_inference(router, place, answering, shared, writing)
    return router


def _add_descriptions(
    router: APIRouter, place: str, answering: Callable[[Request], Answering], shared: dict[str, Any]
) -> None:
    """Add the routes that describe a model, with and without a version."""

    @router.get(place, **shared)
    async def show_model(request: Request) -> ModelMetadata:
        """Describe a model and its tensors."""
        model, version = _named(request)
        return model_metadata(model, await answering(request).status(model, version))

    @router.get(f"{place}/ready", **shared)
    async def model_ready(request: Request) -> ModelReady:
        """Report that a model answers."""
        model, version = _named(request)
        await answering(request).status(model, version)
        return ModelReady(name=model)

    @router.get(f"{place}/config", **shared)
    async def show_config(request: Request) -> ModelConfig:
        """Describe a model in Triton's terms."""
        model, version = _named(request)
        return model_config(model, await answering(request).status(model, version))


def _add_inference(
    router: APIRouter,
    place: str,
    answering: Callable[[Request], Answering],
    shared: dict[str, Any],
    writing: asyncio.Lock,
) -> None:
    """Add the inference routes."""
    described = {"openapi_extra": shared["openapi_extra"] | {"requestBody": _REQUEST_BODY}}

    @router.post(
        f"{place}/infer",
        response_class=Response,
        responses={200: _ANSWERED, **_refusals(*_REFUSED)},
        **shared | described,
    )
    async def infer(
        request: Request,
        inference_header_content_length: Annotated[str | None, Header(description="Bytes of JSON.")] = None,
        accept_encoding: Annotated[str | None, Header(description="gzip or deflate.")] = None,
    ) -> Response:
        """Answer tensors with tensors."""
        model, version = _named(request)
        body = await request.body()

        def read(status: ModelStatus, count: Count) -> tuple[InferenceRequest, Question]:
            return asked_of(parse_request(body, inference_header_content_length), status, count)

        async def answered() -> tuple[Answer, InferenceRequest]:
            async with answering(request).made(model, version, read) as (asked, question):
                return await answering(request).answer(model, version, question, deadline=deadline_of(asked)), asked

        answer, asked = await unless_gone(request, answered())
        if len(answer.body) <= _SMALL:
            return await run_in_threadpool(_written, answer, asked, accept_encoding)
        async with writing:
            return await run_in_threadpool(_written, answer, asked, accept_encoding)


def _named(request: Request) -> tuple[str, str | None]:
    return request.path_params["model"], request.path_params.get("version")


def _written(answer: Answer, asked: InferenceRequest, accept_encoding: str | None) -> Response:
    body, header_length = write_response(response_of(answer, asked), asked)
    body, coding = compress(body, accept_encoding)
    headers = {"Vary": "Accept-Encoding"}
    if header_length is not None:
        headers[_HEADER_LENGTH] = str(header_length)
    if coding is not None:
        headers["Content-Encoding"] = coding
    media_type = "application/json" if header_length is None else "application/octet-stream"
    return Response(body, headers=headers, media_type=media_type)


class _Route(APIRoute):
    """A route with error responses of this protocol; other routes of the service keep their format."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except CytorayError as error:
                return JSONResponse({"error": error_text(error)}, error.status, refusal_headers(error))

        return handle


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": OpenInferenceError, "description": _REFUSED[status]} for status in statuses}


def _without_references(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of a model with all references resolved."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})

    def put(node: Any) -> Any:
        if isinstance(node, list):
            return [put(one) for one in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return put(parts[node["$ref"].rpartition("/")[2]])
        return {name: put(value) for name, value in node.items()}

    put_in: dict[str, Any] = put(schema)
    return put_in


_REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "description": f"Tensors as JSON; or JSON with the length in {_HEADER_LENGTH}, followed by binary tensors.",
    "content": {
        "application/json": {"schema": _without_references(RequestBody)},
        "application/octet-stream": _BINARY,
    },
}
_ANSWERED: dict[str, Any] = {
    "model": ResponseBody,
    "description": "The outputs; as bytes if requested.",
    "content": {"application/octet-stream": _BINARY},
    "headers": {
        _HEADER_LENGTH: {"description": "Length of the JSON in bytes; absent without binary data.", "schema": _TEXT}
    },
}
