"""Bodies of requests in JSON, for addresses that take other bodies as well."""

from __future__ import annotations

from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from cytoray_analysis.errors import RequestError

Model = TypeVar("Model", bound=BaseModel)


def is_json(request: Request) -> bool:
    """Whether the body of a request is JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json"


def parse_json(model: type[Model], body: bytes, *, what: str, hint: str) -> Model:
    """Parse a JSON object.

    Parameters
    ----------
    what
        What the object contains, for the message.
    hint
        An example.

    Raises
    ------
    RequestError
        It is no JSON, or has other fields.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        raise RequestError(
            f"expected a JSON object with {what}: {first['msg']}",
            field=".".join(str(part) for part in first["loc"]) or "body",
            hint=hint,
        ) from error
