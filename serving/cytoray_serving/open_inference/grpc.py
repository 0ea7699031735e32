"""The Open Inference Protocol over gRPC: one method per call, for gRPC servers and ingress deployments of Ray Serve.

Ray Serve calls methods of its ingress deployment by the names of the calls, with a context like the one of gRPC, so the
same class works with both.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import wraps
from typing import Any

from cytoray_analysis.errors import CytorayError, RequestError
from cytoray_services.http.errors import refusal_headers
from cytoray_serving.messages import Answering, Count, Question
from cytoray_serving.open_inference.messages import InferenceRequest, InferenceResponse, Wanted, error_text
from cytoray_serving.open_inference.metadata import model_metadata, server_metadata
from cytoray_serving.open_inference.tensors import Tensor, array_of_list, array_of_raw, raw_of_array
from cytoray_serving.open_inference.translate import asked_of, deadline_of, response_of
from cytoray_serving.schema import ModelStatus

log = logging.getLogger(__name__)

# For gRPCOptions(grpc_servicer_functions=[…]) of Ray Serve.
SERVICER = "cytoray_serving.open_inference.protocol.open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server"
_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}
CALLS = "/inference.GRPCInferenceService"
"""Prefix of the names of the calls."""
OPEN_CALLS = (f"{CALLS}/ServerLive", f"{CALLS}/ServerReady")
"""Calls that require no token."""
_MOST_PARAMETERS = 256
_LONGEST_DETAILS = 2000  # they are sent in HTTP/2 trailers of at most 8 KB
_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
Method = Callable[[Any, Any, Any], Coroutine[Any, Any, Any]]


def _call(method: Method) -> Method:
    """Let a method raise the errors of the service, which become the code and the details of the call.

    They are set, not raised, because gRPC servers log a traceback for every exception.
    """

    @wraps(method)
    async def call(self: Any, request: Any, grpc_context: Any) -> Any:
        try:
            return await method(self, request, grpc_context)
        except CytorayError as error:
            return _refused(method, grpc_context, error)
        except Exception:
            log.exception("unexpected error in the call %s", method.__name__)
            return _refused(method, grpc_context, CytorayError("the service failed to answer (see its log)"))

    return call


def status_of(error: CytorayError) -> tuple[Any, str]:
    """Return the code and the details of a call that ends with an error."""
    from grpc import StatusCode  # type: ignore[import-untyped]

    code = _CODES.get(error.status, "INVALID_ARGUMENT" if error.status < 500 else "INTERNAL")
    return StatusCode[code], error_text(error)[:_LONGEST_DETAILS]


def trailers_of(error: CytorayError) -> tuple[tuple[str, str], ...]:
    """Return the trailing metadata of a call that ends with an error: ``retry-after``, if a retry can succeed."""
    return tuple((name.lower(), value) for name, value in refusal_headers(error).items() if name == "Retry-After")


def _refused(method: Method, grpc_context: Any, error: CytorayError) -> Any:
    code, details = status_of(error)
    grpc_context.set_code(code)
    grpc_context.set_details(details)
    grpc_context.set_trailing_metadata(list(trailers_of(error)))
    return getattr(_messages(), f"{method.__name__}Response")()


class InferenceMethods:
    """The calls of ``inference.GRPCInferenceService``.

    Parameters
    ----------
    answering
        Returns the service for a value of the metadata ``authorization`` (or None), or raises an error. The health
        calls need no token.
    require_ready
        Raises an error if the service is not ready.
    """

    def __init__(
        self,
        answering: Callable[[str | None], Answering],
        *,
        require_ready: Callable[[], Awaitable[object]],
    ) -> None:
        self._answering = answering
        self._require_ready = require_ready

    @_call
    async def ServerLive(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802 - the protocol's names
        """Report that the server runs."""
        return _messages().ServerLiveResponse(live=True)

    @_call
    async def ServerReady(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """Report that every model answers."""
        await self._require_ready()
        return _messages().ServerReadyResponse(ready=True)

    @_call
    async def ServerMetadata(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """Describe the server."""
        self._for(grpc_context)
        return _messages().ServerMetadataResponse(**server_metadata().model_dump())

    @_call
    async def ModelReady(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """Report that a model answers."""
        await self._for(grpc_context).status(request.name, request.version or None)
        return _messages().ModelReadyResponse(ready=True)

    @_call
    async def ModelMetadata(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """Describe a model and its tensors."""
        status = await self._for(grpc_context).status(request.name, request.version or None)
        return _messages().ModelMetadataResponse(**model_metadata(request.name, status).model_dump())

    @_call
    async def ModelInfer(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """Answer tensors with tensors."""
        answering = self._for(grpc_context)
        model, version = request.model_name, request.model_version or None

        def read(status: ModelStatus, count: Count) -> tuple[InferenceRequest, Question]:
            return asked_of(request_of(request), status, count)

        async with answering.made(model, version, read) as (asked, question):
            answer = await answering.answer(model, version, question, deadline=deadline_of(asked))
            return await asyncio.to_thread(lambda: _message_of(response_of(answer, asked), asked.id))

    def _for(self, grpc_context: Any) -> Answering:
        return self._answering(dict(grpc_context.invocation_metadata()).get("authorization"))


def _messages() -> Any:
    from cytoray_serving.open_inference.protocol import open_inference_pb2

    return open_inference_pb2


def request_of(request: Any) -> InferenceRequest:
    """Parse the message of a request; raise :class:`RequestError` if it is malformed."""
    raw = list(request.raw_input_contents)
    if raw and (len(raw) != len(request.inputs) or any(one.HasField("contents") for one in request.inputs)):
        raise RequestError(
            f"expected raw contents for exactly the {len(request.inputs)} inputs, got {len(raw)}",
            field="raw_input_contents",
        )
    inputs: dict[str, Tensor] = {}
    for place, one in enumerate(request.inputs):
        if one.name in inputs:
            raise RequestError(f"expected each input once, got {one.name!r} twice", field="inputs")
        shape = list(one.shape)
        if raw:
            values = array_of_raw(one.name, one.datatype, shape, raw[place])
        else:
            contents = _CONTENTS.get(one.datatype)
            listed = () if contents is None else getattr(one.contents, contents)
            values = array_of_list(one.name, one.datatype, shape, listed)
        inputs[one.name] = Tensor(one.name, one.datatype, values, _parameters(one.parameters))
    wanted = tuple(Wanted(one.name, binary=True) for one in request.outputs)
    return InferenceRequest(inputs, wanted, True, _parameters(request.parameters), request.id)


def _message_of(response: InferenceResponse, identifier: str) -> Any:
    messages = _messages()
    return messages.ModelInferResponse(
        model_name=response.model,
        model_version=response.version or "",
        id=identifier,
        parameters={name: _parameter(value) for name, value in response.parameters.items()},
        outputs=[
            {"name": output.name, "datatype": output.datatype, "shape": output.values.shape}
            for output in response.outputs
        ],
        raw_output_contents=[bytes(raw_of_array(output.values)) for output in response.outputs],
    )


def _parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    if len(parameters) > _MOST_PARAMETERS:
        raise RequestError(f"expected at most {_MOST_PARAMETERS} parameters, got {len(parameters)}", field="parameters")
    chosen = {name: value.WhichOneof("parameter_choice") for name, value in parameters.items()}
    return {name: getattr(parameters[name], choice) for name, choice in chosen.items() if choice is not None}


def _parameter(value: bool | int | float | str) -> Any:
    kind = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}[type(value)]
    return _messages().InferParameter(**{kind: value})
