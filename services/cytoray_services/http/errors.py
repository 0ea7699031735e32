"""Errors over HTTP: one body for all error responses, written by services and read by clients."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from cytoray_analysis import errors
from cytoray_analysis.errors import CytorayError, OverloadedError, PlatformError, RequestError, UnauthorizedError
from cytoray_analysis.uris import without_secrets

if TYPE_CHECKING:
    from fastapi import FastAPI, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse, Response
    from starlette.exceptions import HTTPException

log = logging.getLogger(__name__)

# The header that a response with status 401 needs (RFC 6750).
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="cytoray"'}

LEFT = 499  # the status that proxies log for a caller that disconnected; no caller receives it


class ErrorBody(BaseModel):
    """The body of every error response."""

    model_config = ConfigDict(frozen=True)

    error: str = Field(description="Name of the error, such as UnreadableImageError.")
    message: Annotated[str, AfterValidator(without_secrets)] = Field(
        description="What was expected and what was found."
    )
    field: str | None = Field(default=None, description="The invalid field, header or argument.")
    hint: str | None = Field(default=None, description="What to do.")


def refusal_headers(error: CytorayError) -> dict[str, str]:
    """Return the headers of an error response: when to retry, or that a token is required."""
    if isinstance(error, PlatformError):
        return {"Retry-After": str(error.retry_after if isinstance(error, OverloadedError) else 1)}
    return dict(CHALLENGE) if isinstance(error, UnauthorizedError) else {}


def invalid_request(error: RequestValidationError) -> RequestError:
    """Return the error for a request that does not match the OpenAPI document."""
    first = error.errors()[0]
    return RequestError(first["msg"], field=".".join(str(part) for part in first["loc"]))


def add_error_handlers(api: FastAPI) -> None:
    """Return every error with the same body."""
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import Response
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect

    @api.exception_handler(CytorayError)
    async def cytoray_error(request: Request, error: CytorayError) -> JSONResponse:
        return _response(error.status, error, refusal_headers(error))

    @api.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
        return _response(422, invalid_request(error))

    @api.exception_handler(HTTPException)
    async def routing_error(request: Request, error: HTTPException) -> JSONResponse:
        described = RequestError(
            f"{error.detail}: {request.method} {request.url.path}", hint="GET /openapi.json lists the addresses"
        )
        return _response(error.status_code, described, error.headers)

    @api.exception_handler(ClientDisconnect)
    async def left(request: Request, error: ClientDisconnect) -> Response:
        log.warning("the caller disconnected before %s %s was answered", request.method, request.url.path)
        return Response(status_code=LEFT)

    @api.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> JSONResponse:
        log.error("unexpected %s at %s %s", type(error).__name__, request.method, request.url.path, exc_info=error)
        return _response(500, CytorayError("the service failed to answer", hint="see the log of the service"))


def error_of_response(status: int, body: bytes) -> CytorayError:
    """Convert an error response to the error that the service raised."""
    try:
        described = ErrorBody.model_validate_json(body)
    except ValidationError:
        kind: type[CytorayError] = RequestError if status < 500 else PlatformError
        return kind(f"the service answered with status {status}: {body[:200].decode(errors='replace')}")
    named = getattr(errors, described.error, None)
    if not (isinstance(named, type) and issubclass(named, CytorayError)):
        named = RequestError if status < 500 else PlatformError
    return named(described.message, field=described.field, hint=described.hint)


def _response(status: int, error: CytorayError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    from fastapi.responses import JSONResponse

    return JSONResponse(error.describe(), status_code=status, headers=dict(headers or {}))
