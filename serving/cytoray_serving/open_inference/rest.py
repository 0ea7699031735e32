"""The Open Inference Protocol over REST: routes under ``/v2``, and errors as its clients read them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from cytoray_analysis.errors import CytorayError
from cytoray_services.http_errors import refusal_headers
from cytoray_serving.exchange import Answer, Answering, Question
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
from cytoray_serving.open_inference.translate import deadline_of, question_of, response_of
from cytoray_serving.requests import unless_gone

_HEADER_LENGTH = "Inference-Header-Content-Length"
_TEXT = {"type": "string"}
_BINARY = {"schema": {"type": "string", "format": "binary"}}


class OpenInferenceError(BaseModel):
    """What the protocol answers a refused request with."""

    error: str = Field(description="What was expected, what came, and what to do.")


_REFUSED: dict[int, str] = {
    400: "A malformed request, or tensors that the model does not take.",
    401: "No token, or one that is not valid.",
    403: "A token without the scope that is needed.",
    404: "No such model, or no such segmentation model.",
    408: "The time that the parameter timeout gives has passed.",
    413: "The body or the image is too large.",
    422: "The image or the masks cannot be read, or do not suit the model.",
    429: "As much is waiting as may wait.",
    503: "The model is starting, or cannot be reached.",
}


def open_inference_routes(
    answering: Answering,
    *,
    guard: Sequence[Any] = (),
    require_ready: Callable[[], Awaitable[object]] | None = None,
) -> APIRouter:
    """Return the routes of the protocol; bodies are limited and unpacked by :mod:`cytoray_serving.front.entrance`.

    Parameters
    ----------
    answering
        What answers.
    guard
        Dependencies that refuse who may not ask; whether the server lives and is ready may be asked by all.
    require_ready
        Raises what keeps the service from answering; None asks every model for its status.
    """
    router = APIRouter(prefix="/v2", tags=["open inference protocol"], route_class=_Route)
    guarded: dict[str, Any] = {"dependencies": list(guard)}

    @router.get("/health/live")
    async def live() -> ServerLive:
        """Say that the server runs."""
        return ServerLive()

    @router.get("/health/ready", responses=_refusals(429, 503))
    async def ready() -> ServerReady:
        """Say that every model answers."""
        await (require_ready or answering.statuses)()
        return ServerReady()

    @router.get("", responses=_refusals(401, 403), **guarded)
    async def show_server() -> ServerMetadata:
        """Describe the server."""
        return server_metadata()

    @router.post("/repository/index", responses=_refusals(401, 403, 429, 503), **guarded)
    async def index() -> list[ModelIndexed]:
        """List what is served."""
        return model_index(await answering.statuses())

    for place, names in (("/models/{model}", ["model"]), ("/models/{model}/versions/{version}", ["model", "version"])):
        parameters = [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names]
        shared = guarded | {"openapi_extra": {"parameters": parameters}}
        _add_descriptions(router, place, answering, shared | {"responses": _refusals(400, 401, 403, 404, 429, 503)})
        _add_inference(router, place, answering, shared)
    return router


def _add_descriptions(router: APIRouter, place: str, answering: Answering, shared: dict[str, Any]) -> None:
    """Add what a model tells of itself, at its address with or without a version."""

    @router.get(place, **shared)
    async def show_model(request: Request) -> ModelMetadata:
        """Describe a model and its tensors."""
        model, version = _named(request)
        return model_metadata(model, await answering.status(model, version))

    @router.get(f"{place}/ready", **shared)
    async def model_ready(request: Request) -> ModelReady:
        """Say that a model answers."""
        model, version = _named(request)
        await answering.status(model, version)
        return ModelReady(name=model)

    @router.get(f"{place}/config", **shared)
    async def show_config(request: Request) -> ModelConfig:
        """Describe a model in Triton's terms."""
        model, version = _named(request)
        return model_config(model, await answering.status(model, version))


def _add_inference(
    router: APIRouter,
    place: str,
    answering: Answering,
    shared: dict[str, Any],
) -> None:
    """Add what a model is asked with."""
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
        status = await answering.status(model, version)

        def read() -> tuple[InferenceRequest, Question]:
            asked = parse_request(body, inference_header_content_length)
            return asked, question_of(asked, status)

        asked, question = await run_in_threadpool(read)
        work = answering.answer(model, version, question, deadline=deadline_of(asked))
        answer = await unless_gone(request, work)
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
    """A route whose refusals have the body of this protocol; the rest of the service keeps its own."""

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
    """Return the JSON schema of a model with those that it refers to in their places."""
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
    "description": f"Tensors as JSON; or JSON of the length that {_HEADER_LENGTH} tells, and binary tensors after it.",
    "content": {
        "application/json": {"schema": _without_references(RequestBody)},
        "application/octet-stream": _BINARY,
    },
}
_ANSWERED: dict[str, Any] = {
    "model": ResponseBody,
    "description": "The outputs; as bytes where the request says so.",
    "content": {"application/octet-stream": _BINARY},
    "headers": {_HEADER_LENGTH: {"description": "Bytes of JSON; absent where all is JSON.", "schema": _TEXT}},
}
